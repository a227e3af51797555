package rootless

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	refused := fmt.Errorf("make namespaces: %w", unix.EPERM)
	for _, c := range []struct {
		file, value string
		err         error
		want        string
	}{
		{"kernel/unprivileged_userns_clone", "0\n", refused, "kernel.unprivileged_userns_clone=0 forbids it (run as root, or `sysctl kernel.unprivileged_userns_clone=1` as root)"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1\n", refused, "kernel.apparmor_restrict_unprivileged_userns=1 forbids it"},
		{"user/max_user_namespaces", "0\n", fmt.Errorf("make namespaces: %w", unix.ENOSPC), "user.max_user_namespaces=0 forbids it"},
		{"user/max_user_namespaces", "100\n", refused, "make namespaces: operation not permitted (run as root)"},
		{"user/max_user_namespaces", "0\n", errors.New("broken"), "broken"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, c.file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(c.value), 0o644)); err != nil {
			t.Fatal(err)
		}
		if got := explain(dir, c.err).Error(); !strings.Contains(got, c.want) {
			t.Errorf("%s=%s: %q, want %q in it", c.file, c.value, got, c.want)
		}
	}
}

func TestFindSpan(t *testing.T) {
	const text = "# comment\nann:1:2:3\nann:x:5\nann:100000:0\nbob:200000:65536\n1000:300000:10\nann:400000:65536\n"
	for _, c := range []struct {
		names []string
		want  span
		ok    bool
	}{
		{[]string{"1001", "bob"}, span{200000, 65536}, true},
		{[]string{"1000", "ann"}, span{300000, 10}, true},
		{[]string{"ann"}, span{400000, 65536}, true},
		{[]string{"eve"}, span{}, false},
	} {
		if got, ok := findSpan(text, c.names); got != c.want || ok != c.ok {
			t.Errorf("%v: %v, %v", c.names, got, ok)
		}
	}
}

func FuzzFindSpan(f *testing.F) {
	f.Add("ann:100000:65536\n")
	f.Add("ann:-1:99999999999\n:::\n")
	f.Fuzz(func(t *testing.T, text string) {
		if s, ok := findSpan(text, []string{"ann"}); ok && (s.low == 0 || s.count == 0) {
			t.Errorf("%q: %v", text, s)
		}
	})
}

func TestOwnGroup(t *testing.T) {
	const unified = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	for _, c := range []struct{ mounts, own, want string }{
		{unified, "0::/user.slice/a b.scope\n", "/sys/fs/cgroup/user.slice/a b.scope"},
		{"24 20 0:21 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" + unified, "3:cpu:/x\n0::/\n", "/sys/fs/cgroup"},
		{unified, "0::/../other\n", ""}, // of a namespace that we are not in
		{unified, "3:cpu:/x\n", ""},
		{"25 20 0:22 /sub /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/a\n", ""},
		{"cgroup2 - cgroup2\n", "0::/a\n", ""},
		{"", "", ""},
	} {
		if got := ownGroup(c.mounts, c.own); got != c.want {
			t.Errorf("%q, %q: %q, want %q", c.mounts, c.own, got, c.want)
		}
	}
}

func FuzzOwnGroup(f *testing.F) {
	f.Add("25 20 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/a\n")
	f.Add(" - cgroup2", "0::..")
	f.Fuzz(func(t *testing.T, mounts, own string) {
		if strings.Contains(mounts, "..") {
			return // the kernel's mount points have none
		}
		if got := ownGroup(mounts, own); strings.Contains(got, "..") {
			t.Errorf("%q, %q: %q", mounts, own, got)
		}
	})
}
