package android

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadAnswer(t *testing.T) {
	for in, want := range map[string]string{
		"OK\r\n":                                 "",
		"Pixel\r\nOK\r\nmore":                    "Pixel",
		"a\nb\x1b[1m\nOK\n":                      "a/b [1m",
		"OK: killing emulator, bye bye\r\n":      "",
		"KO:  no\x07pe\r\n":                      "the emulator says: no pe",
		"virtual device is running\r\n":          "unexpected EOF",
		"":                                       "unexpected EOF",
		"OKAY\r\nKO\r\n":                         "the emulator says: ",
		"KO: virtual device already stopped\r\n": "the emulator says: virtual device already stopped",
	} {
		lines, err := readAnswer(bufio.NewReader(strings.NewReader(in)))
		got := strings.Join(lines, "/")
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzConsole plays any emulator to the client.
func FuzzConsole(f *testing.F) {
	f.Add("Android Console: Authentication required\r\nOK\r\nOK\r\nphone\r\nOK\r\n")
	f.Add("OK\r\nKO: unknown command, try 'help'\r\n")
	f.Add("\xff\xfb\x01OK\r\n\x00")
	f.Fuzz(func(t *testing.T, says string) {
		c := &console{home: t.TempDir()}
		write(t, c.home+"/"+tokenName, "secret\n", 0o600)
		var told strings.Builder
		lines, err := c.talk(struct {
			io.Reader
			io.Writer
		}{strings.NewReader(says), &told}, "avd name")
		for _, l := range lines {
			if strings.ContainsFunc(l, func(r rune) bool { return r < ' ' }) {
				t.Errorf("control characters in %q", l)
			}
		}
		var no *refusal
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &no) {
			t.Errorf("%v", err)
		}
		if s := told.String(); strings.Contains(s, "secret") && !strings.Contains(says, "Authentication required") {
			t.Errorf("told %q unasked", s)
		}
	})
}
