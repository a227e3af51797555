package namespace

import (
	"context"
	"errors"
	"strings"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/vm"
)

// none is the progress, or answer, of requests that have none.
type none struct{}

// serve says what other hosts may ask of this one.
func (r *Registry) serve() {
	c := r.opts.Cluster
	cluster.Serve(c, "survey", r.surveyHere)
	cluster.Serve(c, "config", r.configHere)
	cluster.Serve(c, "info", func(_ context.Context, _ string, q surveyQuery, _ func(none)) ([]vm.Info, error) {
		return r.opts.VMs.Info(q.Namespace), nil
	})
	cluster.Serve(c, "launch", r.launchHere)
	cluster.Serve(c, "why", r.whyHere)
	cluster.Serve(c, "save", r.saveHere)
	cluster.Serve(c, "tunnels", func(ctx context.Context, _ string, o tunnelOrder, _ func(none)) (tunneled, error) {
		return r.tunnelHere(ctx, o)
	})
	cluster.Serve(c, "clear", func(ctx context.Context, _ string, o clearOrder, _ func(none)) (none, error) {
		return none{}, r.clearHere(ctx, o)
	})
}

// launchOrder has a host launch VMs, none perhaps, of a namespace that is
// spread over Hosts.
type launchOrder struct {
	Namespace string
	Hosts     []string
	Files     string // the files directory of the host that orders
	// Shared are files by name, as they must be for VMs that read them.
	Shared map[string]sharedFile `json:",omitempty"`
	Groups []orderGroup
}

type orderGroup struct {
	Type   vm.Type
	Names  []string
	Config *vm.Config
}

// launched is how far a launch has come.
type launched struct{ Done, Failed int }

// launchHere launches VMs on this host, and remembers what came of it. It makes
// the namespace if needed.
func (r *Registry) launchHere(ctx context.Context, _ string, o launchOrder, progress func(launched)) (none, error) {
	ns, err := r.Get(o.Namespace)
	if err != nil {
		return none{}, err
	}
	err = r.launchOrdered(ctx, o, progress)
	ns.note(o.names(), err)
	return none{}, err
}

func (r *Registry) launchOrdered(ctx context.Context, o launchOrder, progress func(launched)) error {
	if err := r.connect(ctx, o.Namespace, o.Hosts); err != nil {
		return errs.AtStep(err, "connect with the other hosts")
	}
	var reqs []vm.Request
	files := &localFiles{r: r, order: &o, fetched: map[string]bool{}, compared: map[string]bool{}}
	for _, g := range o.Groups {
		if g.Config == nil {
			return errs.New(errs.Invalid, "VMs without a configuration")
		}
		if err := files.localise(ctx, g.Config); err != nil {
			return err
		}
		for _, name := range g.Names {
			if err := checkVMName(name); err != nil {
				return err
			}
			reqs = append(reqs, vm.Request{Namespace: o.Namespace, Name: name, Type: g.Type, Config: g.Config})
		}
	}
	if len(reqs) == 0 {
		return nil
	}
	return r.opts.VMs.Launch(ctx, reqs, func(done, failed int) { progress(launched{done, failed}) })
}

// connect makes sure that the VLANs of a namespace are those of its other hosts.
func (r *Registry) connect(ctx context.Context, namespace string, hosts []string) error {
	if r.opts.Overlay == nil {
		return nil
	}
	return r.opts.Overlay(ctx, namespace, hosts)
}

// launchOn launches VMs on one host of several. The error names the host.
func (n *Namespace) launchOn(ctx context.Context, host string, o launchOrder, progress func(launched)) error {
	r := n.registry
	if host == r.host() {
		_, err := r.launchHere(ctx, host, o, progress)
		return err
	}
	_, err := cluster.Ask[none](ctx, r.opts.Cluster, host, "launch", o, progress)
	return onHost(err, host)
}

// onHost writes the host into the text of an error, which goes to somebody on
// another one, before each of its lines.
func onHost(err error, host string) error {
	if err == nil {
		return nil
	}
	text := "host " + host + ": " + strings.ReplaceAll(err.Error(), "\n", "\nhost "+host+": ")
	return &errs.Error{Kind: errs.KindOf(err), Host: host, Err: errors.New(text)}
}

// tunnelOrder has a host connect a bridge.
type tunnelOrder struct {
	Bridge  string
	Tunnels tunnels
	Destroy bool // the bridge, once its tunnels are gone
}

// tunneled is what an order has done besides.
type tunneled struct{ Made bool } // the bridge

func (r *Registry) tunnelHere(ctx context.Context, o tunnelOrder) (tunneled, error) {
	if r.opts.Tunnels == nil {
		return tunneled{}, errs.New(errs.Unsupported, "this host makes no tunnels")
	}
	made, err := r.opts.Tunnels(ctx, o.Bridge, o.Tunnels.Kind, o.Tunnels.Key, o.Tunnels.Hosts)
	if err == nil && o.Destroy {
		err = r.opts.DestroyBridge(ctx, o.Bridge)
	}
	return tunneled{made}, err
}

func (r *Registry) tunnel(ctx context.Context, host string, o tunnelOrder) (tunneled, error) {
	if host == r.host() {
		return r.tunnelHere(ctx, o)
	}
	did, err := cluster.Ask[tunneled, none](ctx, r.opts.Cluster, host, "tunnels", o, nil)
	return did, onHost(err, host)
}
