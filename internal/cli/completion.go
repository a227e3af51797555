package cli

import (
	"context"
	"embed"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"minimega/pkg/minicli"
	"minimega/pkg/miniclient"
)

// Words after the flags that make the program help a shell.
const (
	completionWord   = "completion"
	completeLineWord = "complete-line"
)

// completeTime bounds how long a shell's Tab waits for the daemon.
const completeTime = 500 * time.Millisecond

//go:embed completion/minimega.*
var scripts embed.FS

// RunCompletion prints the completion script for the shell in cfg.Args[1].
func RunCompletion(cfg Config, std Stdio) int {
	const usage = "usage: minimega completion bash|zsh|fish"
	switch {
	case slices.ContainsFunc(cfg.Args, asksHelp):
		fmt.Fprintln(std.Out, usage)
		return exitOK
	case len(cfg.Args) != 2:
		fmt.Fprintln(std.Err, usage)
		return exitUsage
	}
	script, err := scripts.ReadFile("completion/minimega." + cfg.Args[1])
	if err != nil {
		fmt.Fprintf(std.Err, "no completion for %q: choose bash, zsh or fish\n", cfg.Args[1])
		return exitUsage
	}
	if _, err := io.WriteString(std.Out, flagsIn(string(script))); err != nil {
		fmt.Fprintln(std.Err, err)
		return exitFailed
	}
	return exitOK
}

// flagsIn fills the flags into a script: @FLAGS@ with the names of all, with
// their dash; @VALUES@ with those that take a value, parted by |, @WORDS@ with
// the same, parted by blanks; @FISH@ with a declaration for each.
func flagsIn(script string) string {
	var c Config
	var names, values []string
	var fish strings.Builder
	newFlagSet(&c).VisitAll(func(f *flag.Flag) {
		names = append(names, "-"+f.Name)
		what, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&fish, "complete -c minimega -n 'not __minimega_command' -o %s -d %s", f.Name, fishQuote(usage))
		if what != "" {
			values = append(values, "-"+f.Name)
			fish.WriteString(fishValue(f.Name))
		}
		fish.WriteByte('\n')
	})
	return strings.NewReplacer(
		"@FLAGS@", strings.Join(names, " "), "@VALUES@", strings.Join(values, "|"), "@WORDS@", strings.Join(values, " "),
		"@FISH@\n", fish.String(),
	).Replace(script)
}

// fishValue declares the value of a flag: a file where the name says so.
func fishValue(name string) string {
	switch name {
	case "base", "filepath", "cgroup", "logfile":
		return " -rF"
	case "level":
		return " -xa 'debug info warn error fatal'"
	}
	return " -x"
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// RunCompleteLine prints what the last of the words cfg.Args[1:], which follow
// -e on a shell's command line, can become: one a line, unquoted. It says
// nothing when there is no daemon.
func RunCompleteLine(ctx context.Context, cfg Config, std Stdio) int {
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	words := cfg.Args[1:]
	if len(words) == 0 {
		words = []string{""}
	}
	c, err := miniclient.Dial(ctx, cfg.Base)
	if err != nil {
		return exitOK
	}
	defer c.Close() // the answer is all that is wanted
	beginning, whole := beginningOf(cfg.Namespace, words)
	lines, err := c.Suggest(ctx, beginning)
	if err != nil {
		return exitOK
	}
	for i, l := range lines {
		if !whole {
			lines[i] = lastWord(l)
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		fmt.Fprintln(std.Out, l)
	}
	return exitOK
}

// beginningOf makes the beginning of a command line of a shell's words. whole
// means that the last word is the whole of it, as after `-e "vm sta`.
func beginningOf(namespace string, words []string) (line string, whole bool) {
	last := words[len(words)-1]
	if namespace == "" && len(words) == 1 {
		return last, strings.ContainsFunc(last, unicode.IsSpace)
	}
	if strings.ContainsFunc(last, unicode.IsSpace) {
		last = strings.TrimSuffix(strconv.Quote(last), `"`)
	}
	head := words[:len(words)-1]
	if namespace == "" && len(head) == 1 {
		head = append([]string{}, head[0], "") // two words: -e quotes each then
		return commandLine("", head) + last, false
	}
	return commandLine(namespace, head) + " " + last, false
}

// lastWord is the last word of a line without its quotes.
func lastWord(line string) string {
	if _, word, ok := minicli.LastWord(line); ok {
		return word
	}
	return line
}

// RunClient runs the mode of cfg that is no daemon: a client, -version, or
// help for a shell. handled is false when none is asked for.
func RunClient(ctx context.Context, cfg Config, std Stdio) (status int, handled bool) {
	word := ""
	if len(cfg.Args) > 0 {
		word = cfg.Args[0]
	}
	switch {
	case cfg.Version:
		return RunVersion(std), true
	case cfg.Exec:
		return RunExec(ctx, cfg, std), true
	case cfg.Attach:
		return RunAttach(ctx, cfg, std), true
	case cfg.Pipe != "":
		return RunPipe(ctx, cfg, std), true
	case word == completionWord:
		return RunCompletion(cfg, std), true
	case word == completeLineWord:
		return RunCompleteLine(ctx, cfg, std), true
	}
	return 0, false
}
