package guesttest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"minimega/internal/guest/initrd"
)

// labTime is how long all tests of a guest may take. Alone on a machine they
// take a thirtieth of it.
const labTime = 25 * time.Minute

// labPackage is the first process of the guests of RunTests.
const labPackage = "minimega/internal/guest/guesttest/testdata/lab"

// Package are tests of a package, to be run in a guest.
type Package struct {
	Path string   // import path
	Run  string   // pattern of -test.run
	Env  []string // NAME=value, beside PATH and HOME
	// Programs are built for the tests, which find them in LabDir: import path
	// by name.
	Programs map[string]string
}

// LabDir is where a guest of RunTests has the programs of its tests.
const LabDir = "/run/lab"

// labModules are what tests in guests may use of the kernel. Nobody in the
// guest loads modules when they are asked for.
var labModules = []string{
	"9pnet_virtio", "9p", "overlay", "bridge", "veth", "tun", "8021q", "ip_gre", "vxlan", "dummy", "ifb",
	"sch_ingress", "cls_bpf", "cls_u32", "act_mirred",
}

// RunTests runs tests of packages in a guest under Debian's kernel: with all of
// that kernel's features, control groups of version 2 alone, root's rights, and
// the files of this machine to be read. Each test becomes one of t's. A test
// that is skipped in there has failed, as has a package none of whose tests ran.
func RunTests(t *testing.T, packages ...Package) {
	t.Helper()
	dir := t.TempDir()
	type job struct {
		Args, Env []string
		Dir       string
	}
	var plan []job
	for i, p := range packages {
		binary := filepath.Join(dir, fmt.Sprint(i, ".test"))
		build(t, "test", "-c", "-o", binary, p.Path)
		for name, path := range p.Programs {
			build(t, "build", "-o", filepath.Join(dir, name), path)
		}
		plan = append(plan, job{
			Args: []string{LabDir + "/" + filepath.Base(binary), "-test.v", "-test.timeout=15m", "-test.run=" + p.Run}, Dir: "/tmp",
			Env: append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"}, p.Env...),
		})
	}
	text, err := json.Marshal(plan)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "plan"), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { explainLab(t, dir) })
	bootLab(t, dir)
	for i, p := range packages {
		t.Run(p.Path, func(t *testing.T) { report(t, filepath.Join(dir, fmt.Sprint(i))) })
	}
}

// build runs the go command for programs without C.
func build(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// bootLab boots the guest with a directory and waits for its end.
func bootLab(t *testing.T, dir string) {
	t.Helper()
	k := FindKernel(t)
	boot := t.TempDir()
	lab, image := filepath.Join(boot, "lab"), filepath.Join(boot, "initrd")
	build(t, "build", "-o", lab, labPackage)
	made, err := initrd.WriteFile(image, initrd.Options{Binary: lab, ModulesDir: k.ModulesDir, Drivers: []string{"virtio_pci", "af_packet"}, Modules: labModules})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.Missing) > 0 {
		t.Fatalf("the kernel for guests has no %s: run setup/kernel -f", strings.Join(made.Missing, ", "))
	}
	vm := StartQEMU(t, "-kernel", k.Fast(), "-initrd", image, "-append", "console=ttyS0 quiet ip=none", "-m", "1024", "-smp", "2", "-vga", "none",
		"-uuid", "0b5e7a11-5eed-4000-8000-00000000cafe",
		"-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap", "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
		"-fsdev", "local,id=lab,path="+dir+",security_model=none,multidevs=remap", "-device", "virtio-9p-pci,fsdev=lab,mount_tag=lab")
	if err := vm.waitFor(labTime); err != nil {
		t.Fatalf("QEMU ended with %v", err)
	}
}

// verdict is the line of a test that has ended.
var verdict = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)`)

// report makes tests of t of those in a guest.
func report(t *testing.T, files string) {
	t.Helper()
	status, err := os.ReadFile(files + ".status")
	if err != nil {
		t.Errorf("the guest did not get to the end of it: %v", err)
	}
	out, err := os.ReadFile(files + ".out")
	if err != nil {
		t.Fatal(err)
	}
	ended := verdict.FindAllStringSubmatch(string(out), -1)
	for _, v := range ended {
		t.Run(v[2], func(t *testing.T) {
			t.Logf("%s s in the guest", v[3])
			if v[1] != "PASS" {
				t.Errorf("it ended with %s", v[1])
			}
		})
	}
	if len(ended) == 0 {
		t.Error("no test has run")
	}
	if string(status) != "0" {
		t.Errorf("it ended with %q", status)
	}
}

// explainLab shows what was printed in the guest, if that is asked for or the
// test has failed.
func explainLab(t *testing.T, dir string) {
	if !t.Failed() && !testing.Verbose() {
		return
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.out"))
	if err != nil {
		t.Error(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		t.Logf("%s: %v\n%s", filepath.Base(f), err, text)
	}
}
