package minilog

import (
	"flag"
	"fmt"
	"log/slog"
	"strings"
)

// LevelFatal is for the last words of a program that cannot go on. Logging at
// this level ends nothing: main does.
const LevelFatal = slog.LevelError + 4

// Options is what the command line says about logging.
type Options struct {
	Level   slog.Level
	Verbose bool   // log to stderr
	File    string // and to this file, if not empty
}

// DefaultOptions logs errors to stderr.
func DefaultOptions() Options { return Options{Level: slog.LevelError, Verbose: true} }

// Flags registers -level, -v, -verbose and -logfile, which all programs of
// this module share, and returns where the parsed values will be.
func Flags(fs *flag.FlagSet) *Options {
	o := DefaultOptions()
	fs.Var((*levelValue)(&o.Level), "level", "log level: debug, info, warn, error or fatal")
	fs.BoolVar(&o.Verbose, "v", o.Verbose, "log on stderr")
	fs.BoolVar(&o.Verbose, "verbose", o.Verbose, "log on stderr")
	fs.StringVar(&o.File, "logfile", "", "also append the log to this file")
	return &o
}

// levelValue is a level as a flag.Value.
type levelValue slog.Level

func (v *levelValue) String() string { return LevelName(slog.Level(*v)) }

func (v *levelValue) Set(s string) error {
	l, err := ParseLevel(s)
	if err != nil {
		return err
	}
	*v = levelValue(l)
	return nil
}

// ParseLevel returns the level of that name: debug, info, warn, error or fatal.
func ParseLevel(name string) (slog.Level, error) {
	switch strings.ToLower(name) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "fatal":
		return LevelFatal, nil
	}
	return 0, fmt.Errorf("invalid log level `%s` (debug, info, warn, error or fatal)", name)
}

// LevelName is the name of the highest named level that is not above l.
func LevelName(l slog.Level) string {
	switch {
	case l >= LevelFatal:
		return "fatal"
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warn"
	case l >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}
