package host

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestProcessUsage(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 & read x; while :; do :; done")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer func() {
		for _, child := range children(pid) {
			p, _ := os.FindProcess(child)
			_ = p.Kill()
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var u Usage
	for end := time.Now().Add(time.Minute); u.Procs < 2 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if u, err = ProcessUsage(pid, []int{pid}); err != nil {
			t.Fatal(err)
		}
	}
	if u.Procs != 2 || u.Virtual < u.Resident || u.Resident < u.Shared || u.Shared <= 0 {
		t.Errorf("%+v", u)
	}
	idle := u.Threads
	_, _ = in.Write([]byte("\n"))
	for end := time.Now().Add(time.Minute); u.Threads < idle+100*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		if u, err = ProcessUsage(pid, []int{pid}); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("a busy process takes no time")
		}
	}
	if u.CPU+2*tickLength < u.Threads { // the kernel rounds user and system time of each on their own
		t.Errorf("one thread took %v of %v", u.Threads, u.CPU)
	}
	if _, err := ProcessUsage(1<<22+1, nil); err == nil {
		t.Error("a process that cannot exist has usage")
	}
}

func FuzzCPUTime(f *testing.F) {
	f.Add([]byte("1 (a) b) R 1 1 1 0 -1 4194560 1 2 3 4 17 5 0 0 20 0 1 0 1 1 1"))
	f.Add([]byte(") "))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseCPUTime(b)
	})
}
