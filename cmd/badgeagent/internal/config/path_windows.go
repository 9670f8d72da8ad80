package config

// DefaultPath is read where no file is named, if it exists.
const DefaultPath = `C:\ProgramData\badgeagent\badgeagent.yaml`

// onWindows: Windows has credentials of its own.
const onWindows = true
