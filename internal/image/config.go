package image

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// Config is what an image says of how it wants to be run. Fields that it does
// not set are empty.
type Config struct {
	Entrypoint   []string
	Cmd          []string
	Env          []string // NAME=value
	WorkingDir   string
	User         string // name or number[:group]
	Architecture string // as Go names it
	OS           string
}

// Command is the command line of the image's process.
func (c Config) Command() []string { return slices.Concat(c.Entrypoint, c.Cmd) }

const (
	maxConfig = 8 << 20 // bytes of a manifest or configuration
	maxLayers = 500
)

// parseConfig reads the configuration of an image (OCI image specification,
// "Image Configuration").
func parseConfig(b []byte) (*v1.ConfigFile, error) {
	f, err := v1.ParseConfigFile(bytes.NewReader(b))
	if err != nil {
		return nil, errs.New(errs.Invalid, "the configuration of the image: %w", err)
	}
	if len(f.RootFS.DiffIDs) > maxLayers {
		return nil, errs.New(errs.Invalid, "%d layers are more than any image has", len(f.RootFS.DiffIDs))
	}
	return f, nil
}

func configOf(f *v1.ConfigFile) Config {
	return Config{Entrypoint: f.Config.Entrypoint, Cmd: f.Config.Cmd, Env: f.Config.Env, WorkingDir: f.Config.WorkingDir,
		User: f.Config.User, Architecture: f.Architecture, OS: f.OS}
}

// checkPlatform refuses an image that cannot run here. One that does not say
// what it is for may.
func checkPlatform(c Config, arch string) error {
	if c.OS != "" && c.OS != "linux" || c.Architecture != "" && c.Architecture != arch {
		return errs.WithRemedy(errs.New(errs.Unsupported, "the image is for %s/%s, and this host is linux/%s",
			cmp.Or(c.OS, "linux"), cmp.Or(c.Architecture, arch), arch), "use an image made for this kind of host")
	}
	return nil
}

// User is who a process runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // beside GID
	Home     string
}

const maxAccounts = 1 << 20 // bytes of /etc/passwd and /etc/group that are read

// user finds the user of the configuration in the files of the image, the way
// that image makers count on: `name`, `uid`, and a group after a colon.
func (s stack) user(spec string) (User, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	name = cmp.Or(name, "0")
	passwd, err := s.accounts("/etc/passwd")
	if err != nil {
		return User{}, err
	}
	groups, err := s.accounts("/etc/group")
	if err != nil {
		return User{}, err
	}
	u := User{Home: "/"}
	uid, numeric := number(name)
	found := false
	for _, f := range passwd {
		id, ok := number(f.at(2))
		if f.at(0) == name || numeric && ok && id == uid {
			gid, _ := number(f.at(3))
			u, found = User{UID: id, GID: gid, Home: cmp.Or(f.at(5), "/")}, ok
			name = f.at(0)
			break
		}
	}
	switch {
	case !found && !numeric:
		return User{}, errs.New(errs.Invalid, "the image is to run as user %q, which its /etc/passwd does not have", name)
	case !found:
		u.UID = uid
	}
	if hasGroup && group != "" {
		return u, u.setGroup(group, groups)
	}
	for _, f := range groups {
		if id, ok := number(f.at(2)); ok && id != u.GID && slices.Contains(strings.Split(f.at(3), ","), name) && len(u.Groups) < 1024 {
			u.Groups = append(u.Groups, id)
		}
	}
	return u, nil
}

func (u *User) setGroup(group string, groups []account) error {
	for _, f := range groups {
		if id, ok := number(f.at(2)); ok && f.at(0) == group {
			u.GID = id
			return nil
		}
	}
	gid, ok := number(group)
	if !ok {
		return errs.New(errs.Invalid, "the image is to run as group %q, which its /etc/group does not have", group)
	}
	u.GID = gid
	return nil
}

// account is a line of /etc/passwd or /etc/group.
type account []string

func (a account) at(i int) string {
	if i < len(a) {
		return a[i]
	}
	return ""
}

func (s stack) accounts(name string) ([]account, error) {
	b, err := s.read(name, maxAccounts)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, fs.ErrInvalid) {
		return nil, nil
	}
	var list []account
	for line := range strings.Lines(string(b)) {
		list = append(list, strings.Split(strings.TrimSpace(line), ":"))
	}
	return list, err
}

// number reads an ID. The greatest means nobody to the kernel.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != math.MaxUint32
}

// defaultPath is where programs are looked for when the image names no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// program makes the path of a program absolute: names without a slash are
// looked for in PATH, others start at the working directory.
func (s stack) program(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		return path.Join("/", absolute(name, dir)), nil
	}
	for p := range strings.SplitSeq(cmp.Or(variable(env, "PATH"), defaultPath), ":") {
		full := path.Join("/", absolute(p, dir), name)
		if _, st, err := s.find(full); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			return full, nil
		}
	}
	return "", errs.WithRemedy(errs.New(errs.NotFound, "the image has no program %q to run", name), "set `vm config init`")
}

func absolute(name, dir string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join("/", dir, name)
}

// variable is the last value of a variable of an environment.
func variable(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}
