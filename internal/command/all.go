package command

import (
	"context"
	"log/slog"
	"slices"

	"minimega/internal/capture"
	"minimega/internal/cluster"
	"minimega/internal/deploy"
	"minimega/internal/namespace"
	"minimega/internal/network"
	"minimega/internal/optimize"
	"minimega/internal/record"
	"minimega/internal/vlan"
	"minimega/internal/vm"
	"minimega/pkg/iomeshage"
)

// Deps is what the commands about machines and networks act on: the owners,
// and where files lie.
type Deps struct {
	Host  string // name of this host
	Base  string
	Files string // files directory, absolute
	Log   *slog.Logger

	NS       *namespace.Registry
	Cluster  *cluster.Cluster
	Mesh     func() Mesh // nil while there is none
	Logs     Logs
	VMs      *vm.Manager
	VLANs    *vlan.Registry
	Net      *network.Manager
	Captures *capture.Manager
	Records  *record.Manager
	Optimize *optimize.Optimizer
	Deploy   *deploy.Deployer
	Share    *iomeshage.Service // nil where no files are shared
	QEMU     QEMU
	// AbsSnapshot makes disk snapshots name their backing file absolutely.
	AbsSnapshot bool
	// HashFiles lists files with the hash of their content.
	HashFiles bool
	// Preprocess expands `$VAR` and `file:` in the path of a disk; other
	// arguments are expanded before a command sees them.
	Preprocess func(context.Context, string) (string, error)
}

// Logs sends this host's log to another.
type Logs interface {
	Node() string // "" for none
	SendTo(host string) error
}

// Experiment returns the families about machines and networks.
func Experiment(d *Deps) []Command {
	return slices.Concat(
		vmConfig(d), vmLife(d), vmInfo(d), why(d), vmDevices(d), vmTags(d),
		vmSave(d), nsSave(d), vmHotplug(d), vmTop(d), optimizations(d), viz(d), diskInject(d),
		namespaces(d), schedule(d), meshCommands(d),
		vlans(d), taps(d), mirrors(d), bridges(d),
		captures(d), displays(d), disks(d), files(d),
		deployments(d), clearAll(d),
	)
}
