package main

import (
	"io"
	"os"
)

func init() { actions["say"] = say }

// say prints what comes through the first fifo.
func say([]string) error {
	f, err := os.OpenFile("/dev/fifos/fifo0", os.O_RDWR, 0) // so it has no end
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, f)
	return err
}
