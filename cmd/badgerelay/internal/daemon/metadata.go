package daemon

import "fmt"

// startMetadata serves the relay's auth metadata document, where configured.
func (d *daemon) startMetadata(life *life, doors *doors) error {
	if doors.metadata == nil {
		return nil
	}
	_ = life
	return fmt.Errorf("metadata: not built")
}
