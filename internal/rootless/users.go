package rootless

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// errMapping says that the ranges of further users could not be used.
var errMapping = errors.New("map further users")

// span is a range of ids that a user may use.
type span struct{ low, count uint32 }

// ranges are those of users and groups.
type ranges struct{ users, groups span }

// userRanges are our user's ranges of subuid(5) and subgid(5), nil if there are
// none or if the programs that may map them are missing.
func userRanges() *ranges {
	for _, p := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(p); err != nil {
			return nil
		}
	}
	names := []string{strconv.Itoa(os.Geteuid())}
	if u, err := user.Current(); err == nil {
		names = append(names, u.Username)
	}
	users, err := os.ReadFile("/etc/subuid")
	if err != nil {
		return nil
	}
	groups, err := os.ReadFile("/etc/subgid")
	if err != nil {
		return nil
	}
	u, ok := findSpan(string(users), names)
	g, ok2 := findSpan(string(groups), names)
	if !ok || !ok2 {
		return nil
	}
	return &ranges{u, g}
}

// findSpan finds the first range of one of these names: NAME:LOW:COUNT.
func findSpan(text string, names []string) (span, bool) {
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		f := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(f) != 3 {
			continue
		}
		low, err := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err != nil || err2 != nil || count == 0 || low == 0 {
			continue
		}
		for _, n := range names {
			if f[0] == n {
				return span{uint32(low), uint32(count)}, true
			}
		}
	}
	return span{}, false
}

// mapUsers makes our user root in the namespace of a process, with further
// users if there are ranges of them.
func mapUsers(pid int, r *ranges) error {
	uid, gid := os.Geteuid(), os.Getegid()
	if r != nil {
		return errors.Join(mapSpan("newuidmap", pid, uid, r.users), mapSpan("newgidmap", pid, gid, r.groups))
	}
	for _, f := range []struct{ name, text string }{
		{"setgroups", "deny"}, {"gid_map", fmt.Sprintf("0 %d 1", gid)}, {"uid_map", fmt.Sprintf("0 %d 1", uid)},
	} {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, f.name), []byte(f.text), 0); err != nil {
			return fmt.Errorf("become root of a user namespace: %w", err)
		}
	}
	return nil
}

func mapSpan(program string, pid, own int, s span) error {
	text := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	out, err := exec.Command(program, strconv.Itoa(pid), "0", strconv.Itoa(own), "1", "1", text(s.low), text(s.count)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s: %w: %s", errMapping, program, err, strings.TrimSpace(string(out)))
	}
	return nil
}
