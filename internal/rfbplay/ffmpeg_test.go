package rfbplay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"minimega/internal/errs"
)

// asFFmpeg makes the test program stand in for ffmpeg: it says what it was
// asked for and how much it got, in place of a film.
const asFFmpeg = "RFBPLAY_TEST_FFMPEG"

func fakeFFmpeg() int {
	if os.Getenv(asFFmpeg) == "fail" {
		fmt.Fprintln(os.Stderr, "no such codec")
		return 3
	}
	n, err := io.Copy(io.Discard, os.Stdin)
	if err != nil {
		return 1
	}
	path, _ := strings.CutPrefix(os.Args[len(os.Args)-1], "file:")
	text := fmt.Sprintf("%d bytes\n%s\n", n, strings.Join(os.Args[1:len(os.Args)-1], " "))
	if os.WriteFile(path, []byte(text), 0o600) != nil {
		return 1
	}
	return 0
}

func withFake(t *testing.T, mode string) func(*Config) {
	t.Helper()
	t.Setenv(asFFmpeg, mode)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.FFmpeg = self }
}

func TestFFmpegGetsFrames(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.mp4")
	if _, _, err := run(t, sample(t), path, withFake(t, "work")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf("%d bytes", 16*60*30*4), "-video_size 60x30 -framerate 10 -i pipe:0"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("ffmpeg got %s, not %s", data, want)
		}
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

func TestFFmpegFails(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := run(t, sample(t), filepath.Join(dir, "x.webm"), withFake(t, "fail")); err == nil || !strings.Contains(err.Error(), "ffmpeg: no such codec") {
		t.Errorf("error %v", err)
	}
	_, _, err := run(t, sample(t), filepath.Join(dir, "x.webm"), func(c *Config) { c.FFmpeg = "no-such-ffmpeg" })
	if !errors.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "install ffmpeg") {
		t.Errorf("error %v", err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}
