package process

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// ErrSocketInUse is returned by ListenSocket when somebody serves the socket.
var ErrSocketInUse = errors.New("socket is in use by another process")

// ListenSocket opens the unix socket at path with the given mode. A socket that
// a dead process left is replaced; a live one is ErrSocketInUse, and anything
// else at the path is an error. Closing the listener removes the socket.
func ListenSocket(path string, mode fs.FileMode) (net.Listener, error) {
	if err := clearStale(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := listenPrivately(path, mode)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something else than a socket")
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close() // only the answer mattered
		return ErrSocketInUse
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// listenPrivately makes the socket in a directory that nobody else may enter,
// and links it to its place when its mode is right: between bind and chmod
// others could connect, and the umask belongs to the whole process.
func listenPrivately(path string, mode fs.FileMode) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // an empty directory, at worst
	private := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: private, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	info, err := publish(private, path, mode)
	if err != nil {
		_ = l.Close() // the first error is told
		return nil, err
	}
	return &socketListener{UnixListener: l, path: path, info: info}, nil
}

// publish links the socket to its place. Whoever came first keeps the place.
func publish(private, path string, mode fs.FileMode) (fs.FileInfo, error) {
	if err := os.Chmod(private, mode); err != nil {
		return nil, err
	}
	if err := os.Link(private, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, ErrSocketInUse
		}
		return nil, err
	}
	return os.Lstat(path)
}

// socketListener removes its socket when it is closed.
type socketListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo // of the socket, so that no other is removed
}

func (l *socketListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.info) {
		_ = os.Remove(l.path) // a socket that stays is found stale by the next
	}
	return l.UnixListener.Close()
}

func (l *socketListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }
