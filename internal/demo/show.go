package demo

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/miniclient"
)

// machines are the guests of the demo and their addresses.
var machines = []struct{ name, address string }{
	{"web", "10.0.0.1"}, {"alice", "10.0.0.2"}, {"bob", "10.0.0.3"},
}

// show is the tour itself.
func (d *demo) show(ctx context.Context) error {
	d.say("Describing three machines on one network and launching them.")
	for _, m := range machines {
		if err := d.all(ctx,
			"clear vm config",
			"vm config kernel "+d.kernel.Path,
			"vm config initrd "+d.initrd(),
			"vm config append console=ttyS0 quiet hostname="+m.name+" ip="+m.address+"/24",
			"vm config memory 256",
			"vm config networks office",
			"vm launch kvm "+m.name,
		); err != nil {
			return err
		}
	}

	d.say("Recording what is on the wire of web and on the screen of alice.")
	pcap, page, screen := filepath.Join(d.options.out, "web.pcap"), filepath.Join(d.options.out, "http.pcapng"), filepath.Join(d.options.out, "alice.fb")
	if err := d.all(ctx,
		"capture pcap vm web 0 "+pcap,
		"capture pcap filter 'tcp port 80'",
		"capture pcap vm web 0 "+page,
		"vnc record fb alice "+screen,
		"vm start all",
	); err != nil {
		return err
	}

	d.say("Waiting for the guests to boot; a machine is up when its address is seen on the network.")
	if err := d.booted(ctx); err != nil {
		return err
	}
	if err := d.print(ctx, ".annotate false .columns id,name,state,vlan,ip,memory,vnc_port vm info"); err != nil {
		return err
	}

	d.say("Typing at alice's keyboard: she pings web, and fetches a page from it.")
	if err := d.all(ctx, `vnc type alice "ping -c 3 10.0.0.1\n"`, `vnc type alice "get http://10.0.0.1/\n"`); err != nil {
		return err
	}
	if err := d.traffic(ctx); err != nil {
		return err
	}
	if err := d.print(ctx, ".annotate false .columns bridge,interface,path,packets,drops capture"); err != nil {
		return err
	}
	if err := d.picture(ctx); err != nil {
		return err
	}
	if err := d.all(ctx, "capture pcap delete vm web", "vnc stop fb alice"); err != nil {
		return err
	}
	return d.left([]file{
		{pcap, "the packets: tcpdump -r, wireshark"},
		{page, "only those of HTTP, in the newer format"},
		{filepath.Join(d.options.out, "alice.png"), "alice's screen"},
		{screen, "the recording of alice's screen"},
	})
}

// file is something that the demo leaves.
type file struct{ path, what string }

// left tells what there is to look at, and how to go on.
func (d *demo) left(files []file) error {
	d.say("This is left to look at:")
	for _, f := range files {
		info, err := os.Stat(f.path)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.out, "    %-40s %7d bytes   %s\n", f.path, info.Size(), f.what)
	}
	fmt.Fprint(d.out, `
How to go on:
    minimega demo -stay           the same, and keep the network to play with
    minimega                      your own: the prompt; TAB completes, help explains
    docs/tutorial.md              the commands of this demo, one by one
`)
	return nil
}

// all runs commands and shows them.
func (d *demo) all(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if err := d.do(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// silent runs a command without showing it.
func (d *demo) silent(ctx context.Context, line string) error { return d.quiet(ctx, line, nil) }

// took says how long something took since the start.
func (d *demo) took(what string) {
	fmt.Fprintf(d.out, "    %s  [%.1f s]\n", what, time.Since(d.start).Seconds())
}

// do runs a command and shows it.
func (d *demo) do(ctx context.Context, line string) error {
	fmt.Fprintf(d.out, "    minimega$ %s\n", line)
	return d.quiet(ctx, line, nil)
}

// quiet runs a command; see, if not nil, gets its answer.
func (d *demo) quiet(ctx context.Context, line string, see func([]*miniclient.Response)) error {
	rs, err := d.conn.Do(ctx, line)
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	if see != nil {
		see(rs)
	}
	return nil
}

// print runs a command and shows its answer too.
func (d *demo) print(ctx context.Context, line string) error {
	fmt.Fprintf(d.out, "    minimega$ %s\n", line)
	return d.quiet(ctx, line, func(rs []*miniclient.Response) {
		for _, r := range rs {
			fmt.Fprintln(d.out, indent(r.Rendered))
		}
	})
}

func indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }

// column returns one column of a table, cell by cell.
func (d *demo) column(ctx context.Context, line string) (cells []string, err error) {
	err = d.quiet(ctx, line, func(rs []*miniclient.Response) {
		for _, r := range rs {
			for _, h := range r.Resp {
				for _, row := range h.Tabular {
					cells = append(cells, row[0])
				}
			}
		}
	})
	return cells, err
}

// patience is how long a step waits for guests; software emulation is slow.
const patience = 2 * time.Minute

// until asks again and again, and shows how far things are, until done.
func (d *demo) until(ctx context.Context, what string, done func() (progress string, ok bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		progress, ok, err := done()
		if err != nil {
			return err
		}
		if progress != last {
			fmt.Fprintf(d.out, "    %s  [%.1f s]\n", progress, time.Since(d.start).Seconds())
			last = progress
		}
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errs.New(errs.Unreachable, "%s did not happen within %s", what, patience)
		}
	}
}

func (d *demo) booted(ctx context.Context) error {
	return d.until(ctx, "the boot of all guests", func() (string, bool, error) {
		states, err := d.column(ctx, ".columns state vm info")
		if err != nil {
			return "", false, err
		}
		for _, s := range states {
			if s != "RUNNING" {
				return "", false, errs.New(errs.State, "a guest ended: %s", s)
			}
		}
		ips, err := d.column(ctx, ".columns ip vm info")
		if err != nil {
			return "", false, err
		}
		up := 0
		for _, ip := range ips {
			if ip != "[]" {
				up++
			}
		}
		return fmt.Sprintf("%d of %d are up", up, len(machines)), up == len(machines), nil
	})
}

// traffic waits until the page that alice fetches was captured: three packets
// to connect, request, answer, and the end.
func (d *demo) traffic(ctx context.Context) error {
	return d.until(ctx, "the page on its way from web to alice", func() (string, bool, error) {
		cells, err := d.column(ctx, ".columns packets .filter path~http.pcapng capture")
		n := 0
		if err == nil && len(cells) == 1 {
			_, err = fmt.Sscan(cells[0], &n)
		}
		return fmt.Sprintf("%d packets of HTTP captured", n), n >= 8, err
	})
}

// picture takes a screenshot of alice.
func (d *demo) picture(ctx context.Context) error {
	d.say("Taking a picture of alice's screen.")
	path := filepath.Join(d.options.out, "alice.png")
	line := "vm screenshot alice file " + path
	fmt.Fprintf(d.out, "    minimega$ %s\n", line)
	return d.quiet(ctx, line, func(rs []*miniclient.Response) {
		var encoded string
		if len(rs) > 0 && len(rs[0].Resp) > 0 && json.Unmarshal(rs[0].Resp[0].Data, &encoded) == nil {
			png, _ := base64.StdEncoding.DecodeString(encoded)
			fmt.Fprintf(d.out, "    %d bytes of PNG\n", len(png))
		}
	})
}
