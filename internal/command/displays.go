package command

import (
	"context"
	"strings"
	"sync"

	"minimega/internal/errs"
	"minimega/internal/record"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

// displays is the family that records and drives the screens of VMs.
func displays(d *Deps) []Command {
	name := map[string]Completer{"vm": d.vmNames, "filename": d.fileNames}
	target := map[string]Completer{"vm": d.vmTargets, "filename": d.fileNames}
	return []Command{
		{Patterns: []string{"vnc"}, Short: "show recordings and playbacks of screens",
			Long: "A row per recording or playback that is under way.", Scope: FanOut, Run: d.listRecords},
		{Patterns: []string{"vnc <record,> <kb,fb> <vm name> <filename>"}, Short: "record a VM's screen, or its keyboard and mouse",
			Long: "`fb` records the screen (frame buffer), `kb` the keys and mouse movements of everybody who is connected to the VM's vnc_port.\n" +
				"A file without a directory lies in the files directory. A VM that was launched but not started can be recorded: its first\n" +
				"picture is then in the recording.",
			Scope: VMTarget, Suggest: name, Run: d.startRecord},
		{Patterns: []string{"vnc <stop,> <kb,fb> <vm name>"}, Short: "end a recording",
			Long: "Ends a recording and completes its file.", Scope: VMTarget, Suggest: name, Run: d.stopRecord},
		{Patterns: []string{"vnc <play,> <vm target> <filename>"}, Short: "replay recorded keys and mouse movements",
			Long:  "Replays a kb recording into running VMs, in the time in which it was recorded.\n" + targetHelp,
			Scope: VMTarget, Suggest: target, Run: d.play},
		{Patterns: []string{"vnc <type,> <vm target> <str>..."}, Short: "type text into VMs",
			Long:  "Presses the keys that make the text, on a US keyboard. Quote it, and write \\n for the Return key.\n" + targetHelp,
			Scope: VMTarget, Suggest: target, Run: d.typeText},
		{Patterns: []string{"vnc <stop,> <vm target>", "vnc <pause,> <vm target>", "vnc <continue,> <vm target>", "vnc <step,> <vm target>"}, Short: "end a playback, hold it, or let it go on",
			Long: "`stop` ends a playback and releases the keys that it holds. `pause` holds it before its next event, `continue` lets it go on.\n" +
				"`step` plays the next event at once, whether the playback is paused or not; if it waits for a picture, it waits no longer.\n" +
				targetHelp + " Of several VMs, those without a playback are passed over.",
			Scope: VMTarget, Suggest: target, Run: d.steer},
		{Patterns: []string{"vnc <getstep,> <vm target>"}, Short: "show the next event of playbacks",
			Long: "Shows the event that each playback plays next, as a line of a kb file: the time before it in nanoseconds, and the event.\n" +
				targetHelp + " Of several VMs, those without a playback are passed over.",
			Scope: VMTarget, Suggest: target, Run: d.nextSteps},
		{Patterns: []string{"vnc <inject,> <vm target> <cmd>"}, Short: "put an event into playbacks",
			Long: "Plays one event, written as in a kb file but without its time: `KeyEvent,true,Shift_L`, `PointerEvent,1,320,200`,\n" +
				"`LoadFile,login.kb`, `WaitForIt,10s,prompt.png`. Keys and pointer are sent at once, even if the playback is paused; anything\n" +
				"else comes before the event that would be next. A file without a directory lies in the files directory.\n" +
				targetHelp + " Of several VMs, those without a playback are passed over.",
			Scope: VMTarget, Suggest: target, Run: d.inject},
		{Patterns: []string{"clear vnc"}, Short: "end all recordings and playbacks of screens",
			Long:  "Ends the recordings and playbacks of this namespace: files are completed, keys that are held are released.",
			Scope: FanOut, Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				return done(d.Records.StopAll(c.Namespace))
			}},
	}
}

func (d *Deps) listRecords(_ context.Context, c *Call) (*minicli.Response, error) {
	var rows [][]string
	for _, r := range d.Records.List() {
		if r.Namespace == c.Namespace {
			rows = append(rows, []string{r.Name, r.Type, r.Time, r.Filename})
		}
	}
	return table([]string{"name", "type", "time", "filename"}, rows)
}

// screen returns the screen of a VM in one of the states.
func screen(v *vm.VM, states vm.State, what string) (record.Target, error) {
	t := record.Target{ID: v.ID, Name: v.Name, Namespace: v.Namespace}
	if v.State()&states == 0 {
		remedy := "`vm start " + v.Name + "` first"
		return t, errs.WithRemedy(errs.New(errs.State, "cannot %s: vm %s is %s", what, v.Name, v.State()), remedy)
	}
	m, err := v.Machine()
	if err != nil {
		return t, err
	}
	s, ok := m.(vm.Displayer)
	if !ok {
		return t, errs.InVM(vm.NotSupported(v.Type, what), v.Name)
	}
	if s.VNC() == nil {
		return t, errs.New(errs.Unsupported, "cannot %s: %s %s has no screen", what, v.Type, v.Name)
	}
	t.Proxy = s.VNC()
	return t, nil
}

func kind(c *Call) string {
	if c.Chose("kb") {
		return "kb"
	}
	return "fb"
}

func (d *Deps) startRecord(ctx context.Context, c *Call) (*minicli.Response, error) {
	v, err := d.VMs.Find(c.Namespace, c.Str("vm"))
	if err != nil {
		return nil, err
	}
	t, err := screen(v, vm.Building|vm.Running, "record "+kind(c))
	if err != nil {
		return nil, err
	}
	if kind(c) == "kb" {
		return done(d.Records.RecordKB(ctx, t, d.filesPath(c.Str("filename"))))
	}
	return done(d.Records.RecordFB(ctx, t, d.filesPath(c.Str("filename"))))
}

func (d *Deps) stopRecord(_ context.Context, c *Call) (*minicli.Response, error) {
	v, err := d.VMs.Find(c.Namespace, c.Str("vm"))
	if err != nil {
		return nil, err
	}
	return done(d.Records.Stop(kind(c), c.Namespace, v.Name))
}

// screensAtOnce bounds the machines whose screens are talked to at a time.
const screensAtOnce = 16

// onScreens does something with the screens of the running VMs of a target,
// with many of them at a time.
func (d *Deps) onScreens(c *Call, what string, do func(record.Target) error) error {
	vms, err := d.VMs.Targets(c.Namespace, c.Str("vm"))
	if err != nil {
		return err
	}
	failed := make([]error, len(vms))
	slots := make(chan struct{}, screensAtOnce)
	var wg sync.WaitGroup
	for i, v := range vms {
		if len(vms) > 1 && v.State() != vm.Running {
			continue // a wide target means those to whom it applies
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			t, err := screen(v, vm.Running, what)
			if err == nil {
				err = do(t)
			}
			failed[i] = err
		})
	}
	wg.Wait()
	return errs.Join(failed...)
}

func (d *Deps) play(ctx context.Context, c *Call) (*minicli.Response, error) {
	path := d.filesPath(c.Str("filename"))
	return done(d.onScreens(c, "play", func(t record.Target) error { return d.Records.Play(ctx, t, path) }))
}

func (d *Deps) typeText(ctx context.Context, c *Call) (*minicli.Response, error) {
	text := strings.Join(c.List("str"), " ")
	return done(d.onScreens(c, "type", func(t record.Target) error { return d.Records.Type(ctx, t, text) }))
}

// onPlaybacks does something with the playbacks to the VMs of a target.
func (d *Deps) onPlaybacks(c *Call, do func(vm string) error) error {
	vms, err := d.VMs.Targets(c.Namespace, c.Str("vm"))
	if err != nil {
		return err
	}
	var failed []error
	for _, v := range vms {
		err := do(v.Name)
		switch {
		case len(vms) == 1:
			return err
		case errs.KindOf(err) == errs.NotFound:
			// of many VMs, those without a playback are not meant
		case err != nil:
			failed = append(failed, errs.InVM(err, v.Name))
		}
	}
	return errs.Join(failed...)
}

func (d *Deps) steer(ctx context.Context, c *Call) (*minicli.Response, error) {
	do := d.Records.StopPlay
	switch {
	case c.Chose("pause"):
		do = d.Records.Pause
	case c.Chose("continue"):
		do = d.Records.Continue
	case c.Chose("step"):
		do = func(ns, name string) error { return d.Records.Step(ctx, ns, name) }
	}
	return done(d.onPlaybacks(c, func(name string) error { return do(c.Namespace, name) }))
}

func (d *Deps) nextSteps(_ context.Context, c *Call) (*minicli.Response, error) {
	var rows [][]string
	err := d.onPlaybacks(c, func(name string) error {
		step, err := d.Records.NextStep(c.Namespace, name)
		if err == nil {
			rows = append(rows, []string{name, step})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return table([]string{"name", "step"}, rows)
}

func (d *Deps) inject(ctx context.Context, c *Call) (*minicli.Response, error) {
	event := c.Str("cmd")
	return done(d.onPlaybacks(c, func(name string) error { return d.Records.Inject(ctx, c.Namespace, name, event, d.Files) }))
}
