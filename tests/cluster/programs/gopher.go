// gopher [N]: hash with goroutines that hand each other their sums, and print a line a step: N of
// them, or until input ends.  SIGUSR1 is told.
// gopher start N PROGRAM ARGUMENT...: N children at once, with a pipe from each; one more is killed.
package main

import (
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const workers = 8

// Each takes what came from its neighbour into its sum, and hands it on.
func worker(k int, from <-chan uint64, to chan<- uint64) {
	block := make([]byte, 1<<16)
	for came := range from {
		h := fnv.New64a()
		for i := range block {
			block[i] += byte(came>>(i%8*8)) + byte(i*k)
		}
		h.Write(block)
		to <- h.Sum64()
	}
}

func work(n int) {
	ended := make(chan bool)
	usr1 := make(chan os.Signal, 16)
	signal.Notify(usr1, syscall.SIGUSR1)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	var ring [workers + 1]chan uint64
	for k := range ring {
		ring[k] = make(chan uint64, 1)
	}
	for k := 0; k < workers; k++ {
		go worker(k, ring[k], ring[k+1])
	}
	sum := uint64(1)
	for step := 1; n == 0 || step <= n; step++ {
		// All of them have work at once.
		for k := 0; k < workers; k++ {
			ring[0] <- sum + uint64(k)
			sum ^= <-ring[workers]
		}
		fmt.Println("step", step, "sum", sum)
		select {
		case <-ended:
			if n == 0 {
				return
			}
		case s := <-usr1:
			fmt.Fprintln(os.Stderr, "got", s)
		default:
		}
	}
}

func start(n int, command []string) int {
	var all sync.WaitGroup
	outputs := make([]string, n)
	for k := range outputs {
		all.Add(1)
		go func(k int) {
			defer all.Done()
			out, err := exec.Command(command[0], command[1:]...).Output()
			outputs[k] = fmt.Sprint(strings.TrimSpace(string(out)), " ", err)
		}(k)
	}
	all.Wait()
	for _, out := range outputs {
		fmt.Println(out)
	}
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	time.Sleep(100 * time.Millisecond)
	child.Process.Signal(syscall.SIGTERM)
	fmt.Println(child.Wait())
	return 0
}

func main() {
	n := 0
	if len(os.Args) > 2 && os.Args[1] == "start" {
		n, _ = strconv.Atoi(os.Args[2])
		os.Exit(start(n, os.Args[3:]))
	}
	if len(os.Args) > 1 {
		n, _ = strconv.Atoi(os.Args[1])
	}
	work(n)
}
