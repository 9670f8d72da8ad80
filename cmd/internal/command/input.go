package command

import (
	"context"
	"errors"
	"io"
)

// errInterrupted ends a read that the program's end came before.
var errInterrupted = errors.New("interrupted")

// input is what a command reads until its context ends: whoever types nothing does not
// hold up the end. It belongs to one goroutine.
type input struct {
	ctx context.Context // the command's
	in  io.Reader
}

// Read implements io.Reader.
func (i *input) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, errInterrupted
	}
	type answer struct {
		read []byte
		err  error
	}
	answers := make(chan answer, 1)
	size := len(p)
	go func() { // ends with the read; one that nobody waits for any more ends with the process
		into := make([]byte, size)
		n, err := i.in.Read(into)
		answers <- answer{into[:n], err}
	}()
	select {
	case a := <-answers:
		return copy(p, a.read), a.err
	case <-i.ctx.Done():
		return 0, errInterrupted
	}
}
