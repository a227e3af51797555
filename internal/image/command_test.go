package image

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func command(t *testing.T, base string, args ...string) (status int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	status = Command(context.Background(), base, args, &o, &e)
	return status, o.String(), e.String()
}

func TestCommand(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	if status, out, _ := command(t, base, "list", "-json"); status != 0 || out != "[]\n" {
		t.Errorf("empty: %d %q", status, out)
	}
	ref := push(t, newRegistry(t), "team/web:1", twoLayers(t))
	status, id, progress := command(t, base, "pull", strings.TrimPrefix(ref, "docker://"), "-name", "web")
	if status != 0 || !strings.HasPrefix(id, "sha256:") || !strings.Contains(progress, "2 of 2 layers, ") || !strings.Contains(progress, "(100%)") || !strings.Contains(progress, "/s") {
		t.Errorf("pull: %d %q %q", status, id, progress)
	}
	id = strings.TrimSpace(id)
	if _, out, _ := command(t, base, "list"); !strings.Contains(out, short(id)+"  ") || !strings.Contains(out, "  image:web\n") || !strings.Contains(out, "  "+ref+"\n") {
		t.Errorf("list:\n%s", out)
	}
	var list []Info
	if _, out, _ := command(t, base, "list", "-json"); json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 || list[0].ID != id || len(list[0].Names) != 2 {
		t.Errorf("list -json: %+v", list)
	}
	var one Info
	if status, out, _ := command(t, "/none", "inspect", "-base", base, "web"); status != 0 || json.Unmarshal([]byte(out), &one) != nil || one.Config.WorkingDir != "/srv" {
		t.Errorf("inspect: %d %+v", status, one)
	}
	tar := filepath.Join(t.TempDir(), "x.tar")
	write(t, tar, archive(t, file("f", "12345678")))
	if status, _, text := command(t, base, "import", "-quiet", "-max-bytes", "7", tar); status != 1 || !strings.Contains(text, "limit of 7 bytes (max-bytes)") {
		t.Errorf("limit: %d %q", status, text)
	}
	if status, _, text := command(t, base, "import", "-quiet", tar); status != 0 || text != "" {
		t.Errorf("import: %d %q", status, text)
	}
	if status, _, text := command(t, base, "remove", "image:web", ref, tar); status != 0 {
		t.Errorf("remove: %d %q", status, text)
	}
	if _, out, _ := command(t, base, "list"); strings.Count(out, "\n") != 1 {
		t.Errorf("after removal:\n%s", out)
	}
}

func TestCommandMisuse(t *testing.T) {
	shared := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(t.TempDir(), "base")
	for line, want := range map[string]struct {
		status int
		text   string
	}{
		"":                     {2, "usage"},
		"frob":                 {2, `no command "frob"`},
		"pull":                 {2, "which image?"},
		"pull a b":             {2, "too many words"},
		"pull -x":              {2, "-x"},
		"pull docker://A B":    {2, "too many"},
		"pull docker://:x":     {2, "bad image reference"},
		"import image:x":       {2, "in the store already"},
		"import /none.tar":     {1, "does not exist"},
		"import oci:":          {2, "nothing follows"},
		"inspect none":         {1, `no image "none"`},
		"remove none":          {1, `no image "none"`},
		"list -base /etc/x/":   {0, ""},
		"list -base " + shared: {1, "not of this user alone"},
	} {
		status, _, text := command(t, base, strings.Fields(line)...)
		if status != want.status || !strings.Contains(text, want.text) {
			t.Errorf("%s: %d %q", line, status, text)
		}
	}
	for _, line := range []string{"-h", "help", "pull -h", "list --help"} {
		if status, out, _ := command(t, base, strings.Fields(line)...); status != 0 || !strings.Contains(out, "usage: minimega image") {
			t.Errorf("%s: %d %q", line, status, out)
		}
	}
}
