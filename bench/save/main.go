// Command save measures `vm save` of a guest with 256 MiB of memory in use,
// beside a bare QEMU that is told over QMP to migrate the same guest to a file.
package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"minimega/bench/figure"
	"minimega/internal/qmp"
)

const (
	rounds = 7
	poll   = 2 * time.Millisecond
)

func main() { figure.Main(run) }

// filler is a boot sector that writes to every page of 255 MiB of memory, sets
// the byte at 0x7e00 and rests.
var filler = []byte{
	0xfa, 0x31, 0xc0, 0x8e, 0xd8, // cli; ds = 0
	0xe4, 0x92, 0x0c, 0x02, 0xe6, 0x92, // A20 on
	0x0f, 0x01, 0x16, 0x52, 0x7c, // lgdt [0x7c52]
	0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, // protected mode
	0xb8, 0x08, 0x00, 0x8e, 0xd8, // ds = all memory
	0x66, 0xbf, 0x00, 0x00, 0x10, 0x00, // mov edi, 1 MiB
	0x67, 0x66, 0x89, 0x3f, // mov [edi], edi
	0x66, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add edi, 4096
	0x66, 0x81, 0xff, 0x00, 0x00, 0xf0, 0x0f, // cmp edi, 255 MiB
	0x72, 0xec, // jb
	0x67, 0xc6, 0x05, 0x00, 0x7e, 0x00, 0x00, 0x01, // mov byte [0x7e00], 1
	0xf4, 0xeb, 0xfd, // hlt
	0, 0, 0, 0, 0, 0, 0, 0, // the table of segments
	0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00,
	0x0f, 0x00, 0x42, 0x7c, 0x00, 0x00, // its size and place, 0x7c42
}

const filled = "0000000000007e00: 0x01"

func run() error {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk := make([]byte, 1<<20)
	copy(disk, filler)
	disk[510], disk[511] = 0x55, 0xaa
	image := filepath.Join(dir, "boot.img")
	if err := os.WriteFile(image, disk, 0o600); err != nil {
		return err
	}
	d, err := figure.StartDaemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := launch(ctx, d, image); err != nil {
		return err
	}
	bare, end, err := startBare(ctx, dir, image)
	if err != nil {
		return err
	}
	defer end()
	var ours, theirs []time.Duration
	for i := range rounds + 1 { // the first round warms the caches of both
		a, err := figure.Time(func() error { return save(ctx, d, filepath.Join(dir, "ours")) })
		if err != nil {
			return err
		}
		b, err := figure.Time(func() error { return migrate(ctx, bare, filepath.Join(dir, "theirs")) })
		if err != nil {
			return err
		}
		if err := errors.Join(d.Run(ctx, "vm start guest"), bare.Execute(ctx, "cont", nil, nil)); err != nil {
			return err
		}
		if i > 0 {
			ours, theirs = append(ours, a), append(theirs, b)
		}
	}
	figure.Against("save: a guest of 256 MiB, with its disk", ours, "bare migrate", theirs, "≤ 1.3")
	return nil
}

// launch makes the guest and waits until its memory is full.
func launch(ctx context.Context, d *figure.Daemon, image string) error {
	for _, c := range []string{"vm config memory 256", "vm config disk " + image, "vm launch kvm guest", "vm start guest"} {
		if err := d.Run(ctx, c); err != nil {
			return err
		}
	}
	return until(ctx, func() (bool, error) {
		return answers(ctx, d, `vm qmp guest '{ "execute": "human-monitor-command", "arguments": { "command-line": "xp /1bx 0x7e00" } }'`, filled)
	})
}

// answers reports whether the answer to a command contains a text.
func answers(ctx context.Context, d *figure.Daemon, command, text string) (bool, error) {
	all, err := d.Conn.Do(ctx, command)
	if err != nil {
		return false, err
	}
	for _, r := range all {
		if strings.Contains(r.Rendered, text) {
			return true, nil
		}
	}
	return false, nil
}

// until asks again and again for a minute.
func until(ctx context.Context, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if ok, err := ask(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func save(ctx context.Context, d *figure.Daemon, path string) error {
	if err := d.Run(ctx, "vm save guest "+path); err != nil {
		return err
	}
	return until(ctx, func() (bool, error) {
		if failed, err := answers(ctx, d, "vm save", "failed"); failed || err != nil {
			return false, errors.Join(errors.New("the save failed"), err)
		}
		return answers(ctx, d, "vm save", "completed")
	})
}

// startBare starts the same guest without minimega.
func startBare(ctx context.Context, dir, image string) (*qmp.Client, func(), error) {
	sock := filepath.Join(dir, "qmp")
	c := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-display", "none", "-drive", "format=raw,snapshot=on,file="+image,
		"-qmp", "unix:"+sock+",server=on,wait=off")
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return nil, nil, err
	}
	end := func() { _ = c.Process.Kill(); _ = c.Wait() }
	var client *qmp.Client
	err := until(ctx, func() (bool, error) {
		var err error
		client, err = qmp.Dial(ctx, sock)
		return err == nil, nil
	})
	if err == nil {
		err = until(ctx, func() (bool, error) {
			var said string
			err := client.Execute(ctx, "human-monitor-command", map[string]any{"command-line": "xp /1bx 0x7e00"}, &said)
			return strings.Contains(said, filled), err
		})
	}
	if err == nil { // as fast as it can, not as a guest of a network
		err = client.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 50}, nil)
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	return client, end, nil
}

func migrate(ctx context.Context, c *qmp.Client, path string) error {
	if err := c.Execute(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := c.Execute(ctx, "migrate", map[string]any{"uri": "exec:cat > " + path}, nil); err != nil {
		return err
	}
	return until(ctx, func() (bool, error) {
		var now struct{ Status string }
		if err := c.Execute(ctx, "query-migrate", nil, &now); err != nil {
			return false, err
		}
		if now.Status == "failed" {
			return false, errors.New("the bare migration failed")
		}
		return now.Status == "completed", nil
	})
}
