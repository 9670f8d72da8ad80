//go:build !unix

package postgrestest

import "os"

// hold does nothing: no server is started here, as Debian's is the one.
func hold(*os.Process) {}
