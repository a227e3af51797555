package minicli

import (
	"slices"
	"strings"
	"testing"
)

// things answers for placeholders: names for targets, and what it was asked.
func things(asked *[]string) Values {
	return func(h *Handler, key, text, prefix string, sofar *Command) []string {
		chain := []string{}
		for c := sofar; c != nil; c = c.Sub {
			chain = append(chain, c.Handler.Patterns[0])
		}
		*asked = append(*asked, key+"|"+text+"|"+prefix+"|"+strings.Join(chain, " > "))
		switch text {
		case "vm target":
			if in := sofar.Str("name"); in != "" {
				return []string{in + "-vm"}
			}
			return []string{"foo", "foo bar", "bar", "all"}
		case "diskspec":
			return []string{"a.qc2", "b.qc2"}
		}
		return nil
	}
}

func TestSuggest(t *testing.T) {
	c := language(t)
	var asked []string
	for line, want := range map[string]string{
		"ver":                       "version",
		"VER":                       "version",
		"v":                         "version viz vlans vm vnc",
		"vm config s":               "save schedule serial-ports snapshot sockets state",
		"vm config mem":             "memory",
		"vm conf":                   "config",
		"vm start ":                 `"foo bar" all bar foo`,
		"vm start f":                `"foo bar" foo`,
		`vm start "fo`:              `"foo bar" foo`,
		`vm start "foo b`:           `"foo bar"`,
		`vm start "foo b"`:          `"foo bar"`,
		"vm start foo":              `"foo bar" foo`,
		"vm start x ":               "",
		"vm info ":                  "summary",
		"vm info summary ":          "",
		"vm config disks x ":        "a.qc2 b.qc2",
		"vm config disks b":         "b.qc2",
		"vm config disks ":          "a.qc2 b.qc2",
		".json ":                    "false true",
		".json true vm sta":         "start",
		".json true .csv f":         "false",
		".json true .csv false ver": "version",
		"namespace foo ver":         "version",
		"namespace foo vm start ":   "foo-vm",
		"mesh send x vm kill b":     "bar",
		"mesh send x namesp":        "namespace",
		"cc exec":                   "exec exec-once",
		"cc log level ":             "debug error fatal info warn",
		"vm net bond 1 2 active-":   "active-backup",
		"vm xyz ":                   "",
		"version ":                  "",
		"vm start # f":              "",
		`vm start \x f`:             "",
		"capture pcap vm foo 0 f":   "",
		"router foo fw accept in":   "in",
		"router foo fw ":            "accept chain default drop reject",
		"vm config disk b":          "b.qc2",
		`"vm" 'conf' dis`:           "disks",
		`.json true "vm" st`:        "start stop",
		"vm config q":               "qemu qemu-append qemu-override",
	} {
		got := c.Suggest(line, things(&asked))
		if strings.Join(got, " ") != want {
			t.Errorf("Suggest(%q) = %q, want %q", line, got, want)
		}
	}
	if got := c.Suggest("", nil); !slices.Contains(got, "version") || !slices.Contains(got, ".json") || !slices.IsSorted(got) {
		t.Errorf("Suggest of nothing = %q", got)
	}
	if got := c.Suggest("vm start ", nil); len(got) != 0 {
		t.Errorf("without values: %q", got)
	}
}

func TestSuggestAsksOnce(t *testing.T) {
	c := language(t)
	var asked []string
	c.Suggest(`namespace foo .json true vm net bond b`, things(&asked))
	want := "vm|vm target|b|namespace <name> (command) > .json <true,false> (command) > vm net <add,> <vm target> [netspec]..."
	if len(asked) != 1 || asked[0] != want {
		t.Errorf("asked %q, want once %q", asked, want)
	}
}

// A suggestion put in the place of the last word is suggested again.
func TestSuggestReplaces(t *testing.T) {
	c := language(t)
	var asked []string
	for _, line := range []string{"vm start ", `vm start "fo`, "v", "vm config s", "namespace x vm st"} {
		start, _, _ := LastWord(line)
		for _, word := range c.Suggest(line, things(&asked)) {
			if again := c.Suggest(line[:start]+word, things(&asked)); !slices.Contains(again, word) {
				t.Errorf("%q with %q suggests %q", line, word, again)
			}
		}
	}
}
