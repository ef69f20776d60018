// Installs its SIGHUP handler late, and notes each signal. Usage: late MILLISECONDS NOTES; fewer than 0 is never.
package main

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	milliseconds, _ := strconv.Atoi(os.Args[1])
	if milliseconds < 0 {
		time.Sleep(time.Hour)
	}
	time.Sleep(time.Duration(milliseconds) * time.Millisecond)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP)
	for range signals {
		notes, _ := os.OpenFile(os.Args[2], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		notes.WriteString("hup\n")
		notes.Close()
	}
}
