package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"minimega/pkg/near"
)

// DefaultBase is the base directory unless -base names another.
const DefaultBase = "/tmp/minimega"

// DefaultContext is the context of a mesh unless -context names another.
const DefaultContext = "minimega"

// Config is the program's command line.
type Config struct {
	Base, FilePath string

	Degree    Degree // of the mesh
	MSA       uint   // in seconds
	Broadcast string
	Port      int
	Context   string
	HeadNode  string
	MeshKey   string // file
	MeshOpen  bool
	MeshDial  []string // hosts, with or without port

	VLANRange        string // as given
	VLANMin, VLANMax int    // parsed, both inclusive

	Force, Recover, NoStdin, Panic bool
	Group                          string // may use the daemon; "" for its owner only
	CGroup                         string
	HashFiles, AbsSnapshot         bool
	FileRate                       Rate   // of files from and to other hosts
	VNCListen                      string // address of the screens' ports

	// The modes. At most one is set; without any the program is a daemon.
	Version, CLI, Exec, Attach bool
	Pipe                       string

	Namespace string // prefix for Exec and Attach
	Strict    bool   // Exec fails when the command does
	JSON      bool   // Exec prints JSON

	Level   string // debug, info, warn, error or fatal
	Verbose bool
	LogFile string

	Args []string // what follows the flags

	header, row []string
}

// Table returns all flags as a table of one row, sorted by name.
func (c Config) Table() (header []string, rows [][]string) {
	return slices.Clone(c.header), [][]string{slices.Clone(c.row)}
}

// ParseFlags parses the arguments after the program's name. flag.ErrHelp means
// that -h asked for Usage; any other error is for the user, with exit status 2.
func ParseFlags(args []string) (Config, error) {
	var c Config
	set := newFlagSet(&c)
	if err := set.Parse(args); err != nil {
		return Config{}, explain(set, err)
	}
	c.Args = set.Args()
	if err := c.finish(given(set)); err != nil {
		return Config{}, err
	}
	set.VisitAll(func(f *flag.Flag) {
		c.header = append(c.header, f.Name)
		c.row = append(c.row, f.Value.String())
	})
	return c, nil
}

// asksHelp tells the flag of words that have no others.
func asksHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }

// Usage prints what -h prints.
func Usage(w io.Writer) {
	fmt.Fprint(w, `usage: minimega [flag...]                     run the daemon
       minimega [flag...] -e command...        run one command on the daemon
       minimega [flag...] -attach              be a prompt of the daemon
       minimega [flag...] -pipe name           be an end of a named pipe
       minimega demo                           build a small network and show it
       minimega guest ...                      make systems for guests
       minimega image ...                      bring in and manage images for containers
       minimega mesh key|token|join ...        make and pass on the key of a mesh
       minimega completion bash|zsh|fish       print a completion script

flags:
`)
	var c Config
	set := newFlagSet(&c)
	set.SetOutput(w)
	set.PrintDefaults()
}

func newFlagSet(c *Config) *flag.FlagSet {
	s := flag.NewFlagSet("minimega", flag.ContinueOnError)
	s.SetOutput(io.Discard)
	s.Usage = func() {}
	daemonFlags(s, c)
	meshFlags(s, c)
	clientFlags(s, c)
	level := (*level)(&c.Level)
	*level = "error"
	s.Var(level, "level", "log `level`: debug, info, warn, error or fatal")
	for _, name := range []string{"v", "verbose"} {
		s.BoolVar(&c.Verbose, name, true, "log on stderr")
	}
	s.StringVar(&c.LogFile, "logfile", "", "also log to this `file`")
	return s
}

func daemonFlags(s *flag.FlagSet, c *Config) {
	s.StringVar(&c.Base, "base", DefaultBase, "base `directory`: command socket, machines, state")
	s.StringVar(&c.FilePath, "filepath", filepath.Join(DefaultBase, "files"), "`directory` of files that machines use; <base>/files unless given")
	s.StringVar(&c.Group, "group", "", "`group` whose members may use the daemon; nobody but its owner unless given")
	s.StringVar(&c.VLANRange, "vlanrange", "101-4096", "`min-max` of the VLANs that aliases get")
	s.BoolVar(&c.Force, "force", false, "start even if the command socket is there and answers")
	s.BoolVar(&c.Recover, "recover", false, "adopt the machines that an earlier daemon left running")
	s.BoolVar(&c.NoStdin, "nostdin", false, "show no prompt, run until a signal or quit")
	s.BoolVar(&c.Panic, "panic", false, "panic with all stacks on SIGINT and SIGTERM")
	s.StringVar(&c.CGroup, "cgroup", "/sys/fs/cgroup", "mount point of control groups")
	s.BoolVar(&c.HashFiles, "hashfiles", false, "hash the files that are served to other hosts")
	s.Var(&c.FileRate, "rate", "files of other hosts: most `bytes` a second that they may take, and as many to them: a number, perhaps with K, M or G; 0 for no bound")
	s.BoolVar(&c.AbsSnapshot, "abssnapshot", false, "write absolute backing paths into disk snapshots")
	s.StringVar(&c.VNCListen, "vnc-listen", "127.0.0.1", "`address` on which the screens of machines can be reached; 0.0.0.0 opens them to everybody who can reach this host")
	s.BoolVar(&c.CLI, "cli", false, "print the commands as JSON and exit")
	s.BoolVar(&c.Version, "version", false, "print the version and exit")
}

func meshFlags(s *flag.FlagSet, c *Config) {
	s.Var(&c.Degree, "degree", "mesh: how many `peers` to look for at start, or auto; with -mesh-key auto unless given")
	s.UintVar(&c.MSA, "msa", 10, "mesh: `seconds` until a state announcement times out")
	s.StringVar(&c.Broadcast, "broadcast", "255.255.255.255", "mesh: `address` to look for peers at")
	s.IntVar(&c.Port, "port", 9000, "mesh: TCP and UDP `port`")
	s.StringVar(&c.Context, "context", DefaultContext, "mesh: `name`; only hosts of the same name are peers")
	s.StringVar(&c.HeadNode, "headnode", "", "mesh: `host` that gets all logs and has the files")
	s.StringVar(&c.MeshKey, "mesh-key", "", "mesh: `file` with the key of the mesh (minimega mesh key makes one); without a key no other host is let in")
	s.Func("mesh-dial", "mesh: `hosts` to connect to, as host[:port],...; on the local network they are found without", func(v string) error {
		c.MeshDial = append(c.MeshDial, strings.FieldsFunc(v, func(r rune) bool { return r == ',' })...)
		return nil
	})
	s.BoolVar(&c.MeshOpen, "mesh-open", false, "mesh: let in every host that asks, unauthenticated and in the same context")
}

func clientFlags(s *flag.FlagSet, c *Config) {
	s.BoolVar(&c.Exec, "e", false, "run one command on the running daemon")
	s.BoolVar(&c.Attach, "attach", false, "be a prompt of the running daemon")
	s.StringVar(&c.Pipe, "pipe", "", "connect stdin and stdout with the named `pipe`")
	s.StringVar(&c.Namespace, "namespace", "", "`namespace` for the commands of -e and -attach")
	s.BoolVar(&c.JSON, "json", false, "with -e: print the answer as JSON, errors included")
	s.BoolVar(&c.Strict, "strict", false, "with -e: exit with status 1 when the command failed")
}

// given returns the names of the flags on the command line.
func given(s *flag.FlagSet) map[string]bool {
	names := map[string]bool{}
	s.Visit(func(f *flag.Flag) { names[f.Name] = true })
	return names
}

// finish checks what flags cannot check alone and fills in what depends on others.
func (c *Config) finish(given map[string]bool) error {
	if given["base"] && !given["filepath"] {
		c.FilePath = filepath.Join(c.Base, "files")
	}
	if c.Base == "" {
		return errors.New("-base is empty")
	}
	if c.Port < 0 || c.Port > 65535 {
		return fmt.Errorf("-port %d: a port is between 0 and 65535", c.Port)
	}
	low, high, found := strings.Cut(c.VLANRange, "-")
	if c.MeshKey != "" && c.MeshOpen {
		return errors.New("-mesh-key and -mesh-open exclude each other")
	}
	if c.MeshKey != "" && !given["degree"] {
		c.Degree = DegreeAuto
	}
	var err, err2 error
	c.VLANMin, err = strconv.Atoi(low)
	c.VLANMax, err2 = strconv.Atoi(high)
	if !found || err != nil || err2 != nil || c.VLANMin < 1 || c.VLANMin >= c.VLANMax || c.VLANMax > 4096 {
		return fmt.Errorf("-vlanrange %q: want min-max with 1 <= min < max <= 4096, such as 101-4096", c.VLANRange)
	}
	return c.oneMode(given)
}

// oneMode refuses modes that exclude each other.
func (c *Config) oneMode(given map[string]bool) error {
	modes := map[string]bool{"version": c.Version, "cli": c.CLI, "e": c.Exec, "attach": c.Attach, "pipe": given["pipe"]}
	var on []string
	for name, set := range modes {
		if set {
			on = append(on, "-"+name)
		}
	}
	if len(on) > 1 {
		slices.Sort(on)
		return fmt.Errorf("%s exclude each other", strings.Join(on, " and "))
	}
	if given["pipe"] && c.Pipe == "" {
		return errors.New("-pipe needs the name of a pipe")
	}
	return nil
}

// Degree is how many peers a host of a mesh looks for.
type Degree int

// DegreeAuto looks for as many as are good.
const DegreeAuto Degree = -1

// String is what Set reads.
func (d *Degree) String() string {
	if *d == DegreeAuto {
		return "auto"
	}
	return strconv.Itoa(int(*d))
}

// Set reads a number or auto.
func (d *Degree) Set(v string) error {
	if v == "auto" {
		*d = DegreeAuto
		return nil
	}
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		return errors.New("want a number of peers, or auto")
	}
	*d = Degree(n)
	return nil
}

// Rate is a number of bytes each second, 0 for any.
type Rate int64

// String is what Set reads.
func (r *Rate) String() string { return strconv.FormatInt(int64(*r), 10) }

// Set reads a number with an optional K, M or G (1000, a million, a billion).
func (r *Rate) Set(v string) error {
	number, unit := v, int64(1)
	for suffix, times := range map[string]int64{"K": 1e3, "M": 1e6, "G": 1e9} {
		if cut, ok := strings.CutSuffix(strings.ToUpper(v), suffix); ok {
			number, unit = cut, times
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return errors.New("want bytes a second, such as 100M")
	}
	*r = Rate(n * unit)
	return nil
}

// level is the flag.Value of a log level.
type level string

func (l *level) String() string { return string(*l) }

func (l *level) Set(v string) error {
	if !slices.Contains([]string{"debug", "info", "warn", "error", "fatal"}, v) {
		return errors.New("want debug, info, warn, error or fatal")
	}
	*l = level(v)
	return nil
}

// unknown is how package flag starts its error about an unknown flag.
const unknown = "flag provided but not defined: -"

// explain makes an error of package flag one for the user.
func explain(s *flag.FlagSet, err error) error {
	name, ok := strings.CutPrefix(err.Error(), unknown)
	if !ok {
		return err
	}
	if meant := nearest(s, name); meant != "" {
		return fmt.Errorf("unknown flag -%s: did you mean -%s? (minimega -h lists all)", name, meant)
	}
	return fmt.Errorf("unknown flag -%s (minimega -h lists all)", name)
}

// nearest is the flag that name is most likely meant to be, "" if none is near.
func nearest(s *flag.FlagSet, name string) string {
	best, least := "", len(name)/2+1
	s.VisitAll(func(f *flag.Flag) {
		d := near.Distance(name, f.Name, least)
		if strings.HasPrefix(f.Name, name) || strings.HasPrefix(name, f.Name) && len(f.Name) > 1 {
			d = min(d, 1)
		}
		if d < least {
			best, least = f.Name, d
		}
	})
	return best
}
