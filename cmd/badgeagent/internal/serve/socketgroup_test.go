//go:build unix

package serve

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"badgerelay/cmd/badgeagent/internal/config"
)

// TestSocketHasAGroupOfItsOwn: its clients are not in the group that reads secrets.
func TestSocketHasAGroupOfItsOwn(t *testing.T) {
	ids, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		ids = append(ids, 65534) // nogroup's, on Debian
	}
	for _, id := range ids {
		group, err := user.LookupGroupId(strconv.Itoa(id))
		if err != nil || id == os.Getgid() {
			continue
		}
		path := filepath.Join(t.TempDir(), "s")
		open, err := listen(&config.Config{Ops: config.Ops{Address: "off"}, Local: config.Local{Socket: path, SocketGroup: group.Name}})
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		info, err := os.Stat(path)
		if err != nil || int(info.Sys().(*syscall.Stat_t).Gid) != id || info.Mode().Perm() != 0o660 {
			t.Errorf("the socket is %v, %v; want group %s and mode 0660", info, err, group.Name)
		}
		return
	}
	t.Skip("this user is in no other group")
}
