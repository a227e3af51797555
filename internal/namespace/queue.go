package namespace

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/journal"
	"minimega/internal/vm"
	"minimega/pkg/ranges"
)

// Group is what one `vm launch` asked for: VMs that share a configuration. What
// others can see of it does not change: it is replaced by a copy.
type Group struct {
	Type   vm.Type
	Names  []string // "" for a VM that gets its name at launch
	Config *vm.Config
	hosts  []string // where a dry run or `mv` puts each; of a group that waits guarded by Namespace.mu
	kept   *journal.Entry
}

// Run is one pass over the queue.
type Run struct {
	Start, End       time.Time // End is zero while it runs
	Launched, Failed int
	Total, Hosts     int
}

// Queueing reports whether launches wait for a bare `vm launch`.
func (n *Namespace) Queueing() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.queueing }

// SetQueueing says whether launches wait.
func (n *Namespace) SetQueueing(on bool) {
	n.mu.Lock()
	n.queueing = on
	n.mu.Unlock()
	n.keep()
}

// Queue returns the groups that wait.
func (n *Namespace) Queue() []*Group { n.mu.Lock(); defer n.mu.Unlock(); return slices.Clone(n.queue) }

// FlushQueue drops the groups that wait, and forgets what was refused.
func (n *Namespace) FlushQueue() {
	n.mu.Lock()
	groups := n.queue
	n.queue, n.plan, n.refused = nil, false, nil
	n.mu.Unlock()
	n.dropGroups(groups)
}

// Launch queues VMs of a type, and unless the namespace queues, launches the
// queue and waits for it. what is a count of VMs or a range of names; saved
// names a stored configuration, "" the present one. The error is that of the
// VMs that failed, or says why nothing was queued.
func (n *Namespace) Launch(ctx context.Context, t vm.Type, what, saved string, progress func(done, failed, total int)) error {
	names, err := expandNames(what)
	if err != nil {
		return err
	}
	config := n.Config()
	if saved != "" {
		if config, err = n.savedConfig(saved); err != nil {
			return err
		}
	}
	g := &Group{Type: t, Names: names, Config: config.Clone()}
	if err := n.checkFree(g); err != nil {
		n.note(names, err)
		return err
	}
	waits := n.Queueing()
	if waits {
		n.keepGroup(g)
	}
	// Queued and taken in one step: else the launch of another session may take
	// this group along, and this one finds nothing to launch.
	n.mu.Lock()
	if err := n.enqueueLocked(g); err != nil || waits {
		n.mu.Unlock()
		if err != nil {
			n.note(names, err)
			n.dropGroups([]*Group{g})
		}
		return err
	}
	q := n.takeLocked()
	n.mu.Unlock()
	if err := n.launch(ctx, q, progress); err != nil {
		q.groups = q.groups[:len(q.groups)-1] // nothing waits that was not to wait
		n.putBack(q)
		return err
	}
	return nil
}

// namesOf are the names of all VMs of groups.
func namesOf(groups []*Group) (names []string) {
	for _, g := range groups {
		names = append(names, g.Names...)
	}
	return names
}

// expandNames reads a count or a range of names.
func expandNames(what string) ([]string, error) {
	if count, err := strconv.Atoi(what); err == nil {
		if count <= 0 {
			return nil, errs.New(errs.Invalid, "invalid number of vms (must be > 0)")
		}
		if count > maxCount {
			return nil, errs.New(errs.Invalid, "invalid number of vms: %d is more than one launch may ask for (%d)", count, maxCount)
		}
		return make([]string, count), nil
	}
	names, err := ranges.Expand(what)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if len(names) == 0 {
		return nil, errs.New(errs.Invalid, "no VMs to launch")
	}
	seen := map[string]bool{}
	for _, name := range names {
		if err := checkVMName(name); err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, errs.New(errs.Invalid, "`%s` is specified twice in VMs to launch", name)
		}
		seen[name] = true
	}
	return names, nil
}

// maxCount bounds what a typing error can ask for.
const maxCount = 1_000_000

func checkVMName(name string) error {
	if name == "all" {
		return errs.New(errs.Invalid, "invalid vm name, `all` is a reserved word")
	}
	if _, err := strconv.Atoi(name); err == nil {
		return errs.New(errs.Invalid, "invalid vm name, `%s` is an integer", name)
	}
	if err := CheckName(name); err != nil {
		return fmt.Errorf("%w: `%s`", err, name)
	}
	return nil
}

// checkFree refuses a group one of whose names or whose UUID a VM has.
func (n *Namespace) checkFree(g *Group) error {
	vms := n.registry.opts.VMs
	if g.Config.UUID != "" {
		if len(g.Names) > 1 {
			return errs.New(errs.Invalid, "cannot launch multiple VMs with a pre-configured UUID")
		}
		if vms.HasUUID(strings.ToLower(g.Config.UUID)) {
			return errs.New(errs.Exists, "vm already exists with UUID `%s`", g.Config.UUID)
		}
	}
	for _, name := range g.Names {
		if name != "" && vms.Exists(n.Name, name) {
			return errs.New(errs.Exists, "vm already exists with name `%s`", name)
		}
	}
	return nil
}

// enqueueLocked adds a group unless one of its names or its UUID waits
// already. The caller holds mu.
func (n *Namespace) enqueueLocked(g *Group) error {
	if len(n.hosts) == 0 {
		return errs.WithRemedy(errs.New(errs.State, "namespace must contain at least one host to launch VMs"), "`ns add-hosts localhost`")
	}
	for _, q := range n.queue {
		if g.Config.UUID != "" && strings.EqualFold(q.Config.UUID, g.Config.UUID) {
			return errs.New(errs.Exists, "vm already queued with UUID `%s`", g.Config.UUID)
		}
		for _, name := range g.Names {
			if name != "" && slices.Contains(q.Names, name) {
				return errs.New(errs.Exists, "vm already queued with name `%s`", name)
			}
		}
	}
	n.queue = append(n.queue, g)
	n.plan = false
	return nil
}

// LaunchQueue launches all that waits and returns when every VM is made or has failed.
func (n *Namespace) LaunchQueue(ctx context.Context, progress func(done, failed, total int)) error {
	n.mu.Lock()
	q := n.takeLocked()
	n.mu.Unlock()
	if len(q.groups) == 0 {
		return errs.New(errs.State, "namespace must contain at least one queued VM to launch VMs")
	}
	err := n.launch(ctx, q, progress)
	n.putBack(q)
	return err
}

// taken is what was taken out of the queue.
type taken struct {
	groups  []*Group
	planned bool // their hosts are decided
	ran     bool // they are launched, or have failed to
}

// takeLocked empties the queue. The caller holds mu.
func (n *Namespace) takeLocked() *taken {
	q := &taken{groups: n.queue, planned: n.plan}
	n.queue, n.plan = nil, false
	return q
}

// putBack has groups that were taken and not launched wait again.
func (n *Namespace) putBack(q *taken) {
	if q.ran {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.plan = q.planned && len(n.queue) == 0 && len(q.groups) > 0
	n.queue = append(q.groups, n.queue...)
}

// Runs returns the latest passes over the queue, oldest first.
func (n *Namespace) Runs() []Run {
	n.mu.Lock()
	defer n.mu.Unlock()
	runs := make([]Run, len(n.runs))
	for i, r := range n.runs {
		runs[i] = *r
	}
	return runs
}

// Launching reports whether a pass over the queue is under way.
func (n *Namespace) Launching() bool {
	for _, r := range n.Runs() {
		if r.End.IsZero() {
			return true
		}
	}
	return false
}
