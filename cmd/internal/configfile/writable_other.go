//go:build !unix

package configfile

// writable is not known before it is tried.
func writable(string) error { return nil }
