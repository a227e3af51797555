package vm

import (
	"strings"
	"testing"
)

// A user namespace is said when there is one, and changes nothing otherwise: scripts read this text.
func TestTextUserNS(t *testing.T) {
	c := NewConfig()
	without := c.Text()
	if strings.Contains(without, "User namespace") || !strings.Contains(without, "Container configuration:\nFilesystem Path: \n") {
		t.Errorf("without:\n%s", without)
	}
	c.UserNS = true
	if with := c.Text(); !strings.Contains(with, "User namespace:  true\n") || strings.Count(with, "\n") != strings.Count(without, "\n")+1 {
		t.Errorf("with:\n%s", with)
	}
}
