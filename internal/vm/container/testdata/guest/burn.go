package main

import (
	"fmt"
	"syscall"
	"time"
)

// burn wants two processors for itself, for ever.
func burn([]string) error {
	fmt.Println("ready")
	go func() {
		for {
		}
	}()
	for {
		time.Now()
	}
}

// bomb makes as many processes as it can, again and again.
func bomb([]string) error {
	for {
		_, err := syscall.ForkExec("/guest", []string{"guest", "sleep"}, &syscall.ProcAttr{})
		if err != nil {
			time.Sleep(time.Millisecond)
		}
	}
}
