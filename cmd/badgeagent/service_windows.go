package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/badgeagent/internal/serve"
	"badgerelay/cmd/internal/command"

	"github.com/spf13/cobra"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

// serviceName names the service, its account and its event source.
const serviceName = "badgeagent"

// serviceAccount is the service's own, without a password and without rights.
const serviceAccount = `NT SERVICE\` + serviceName

// stopHint is how long a stop may take: the drain and a little more.
const stopHint = 20 * time.Second

// asService runs the program for the service manager, if that started it.
func asService() (code int, service bool) {
	service, err := svc.IsWindowsService()
	if err != nil || !service {
		return 0, false
	}
	s := &windowsService{code: command.Failed}
	if err := svc.Run(serviceName, s); err != nil {
		return command.Failed, true
	}
	return s.code, true
}

// windowsService is the daemon as Windows sees it.
type windowsService struct{ code int }

func (s *windowsService) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (specific bool, code uint32) {
	status <- svc.Status{State: svc.StartPending, WaitHint: uint32(stopHint.Milliseconds())}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ready, done, reload := make(chan struct{}), make(chan int, 1), make(chan os.Signal, 1)
	go func() { // ends with ctx, or by itself
		t := &command.Terminal{In: strings.NewReader(""), Out: io.Discard, Err: openEvents()}
		a := &app{Terminal: t, host: host{ready: func(serve.Serving) { close(ready) }, reload: reload}}
		done <- command.Run(ctx, a.root(), t, os.Args[1:])
	}()
	const accepts = svc.AcceptStop | svc.AcceptShutdown | svc.AcceptParamChange
	for {
		select {
		case <-ready:
			ready = nil
			status <- svc.Status{State: svc.Running, Accepts: accepts}
		case s.code = <-done:
			return true, uint32(s.code)
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.ParamChange: // sc.exe control badgeagent paramchange
				select {
				case reload <- syscall.SIGHUP:
				default: // one is on its way
				}
				status <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				status <- svc.Status{State: svc.StopPending, WaitHint: uint32(stopHint.Milliseconds())}
				cancel()
			}
		}
	}
}

// events writes the log's lines to the event log, one event each, with the
// line's level.
type events struct{ log *eventlog.Log }

// openEvents returns where the service logs; without an event log, nowhere.
func openEvents() io.Writer {
	log, err := eventlog.Open(serviceName)
	if err != nil {
		return io.Discard
	}
	return &events{log}
}

// Write implements io.Writer. What has no level, such as the usage of a command
// line that is wrong, is an error.
func (e *events) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	report := e.log.Error
	switch {
	case bytes.Contains(line, []byte(`level":"INFO`)), bytes.Contains(line, []byte("level=INFO")),
		bytes.Contains(line, []byte(`level":"DEBUG`)), bytes.Contains(line, []byte("level=DEBUG")):
		report = e.log.Info
	case bytes.Contains(line, []byte(`level":"WARN`)), bytes.Contains(line, []byte("level=WARN")):
		report = e.log.Warning
	}
	if err := report(1, text); err != nil {
		return 0, err
	}
	return len(line), nil
}

func (a *app) serviceCommands() []*cobra.Command {
	var file string
	install := &cobra.Command{
		Use: "install", Short: "install the daemon as a Windows service, or bring it up to date",
		Long: `Installs 'badgeagent serve' as a service that starts with the system, under an
account of its own, and gives that account the directory. Needs an administrator.
Repeating it brings the service up to date with the flags. Logs go to the event
log, source badgeagent.`,
		RunE: a.do(func(context.Context, []string) error { return a.installService(file) }),
	}
	install.Flags().StringVar(&file, "config", config.DefaultPath, "the daemon's configuration")
	uninstall := &cobra.Command{
		Use: "uninstall", Short: "stop and remove the Windows service; the directory stays",
		RunE: a.do(func(context.Context, []string) error { return a.uninstallService() }),
	}
	a.DryRunFlag(install)
	a.DryRunFlag(uninstall)
	return []*cobra.Command{a.group("service", "the daemon as a Windows service; start and stop it as any other", install, uninstall)}
}

func (a *app) installService(file string) error {
	if a.DryRun {
		return a.Would("install the service %s", serviceName)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return err
	}
	if file, err = filepath.Abs(file); err != nil {
		return err
	}
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("reach the service manager (as an administrator?): %w", err)
	}
	defer m.Disconnect() //nolint:errcheck // nothing was written through it
	s, err := newService(m, program, []string{"serve", "--dir", dir, "--config", file})
	if err != nil {
		return fmt.Errorf("install service: %w", err)
	}
	defer s.Close()
	again := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: 5 * time.Second}
	if err := s.SetRecoveryActions([]mgr.RecoveryAction{again, again, again}, uint32((24 * time.Hour).Seconds())); err != nil {
		return fmt.Errorf("have the service restarted: %w", err)
	}
	// A source that is there already is an error of its own text only.
	_ = eventlog.InstallAsEventCreate(serviceName, eventlog.Error|eventlog.Warning|eventlog.Info)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := protect(dir); err != nil {
		return err
	}
	a.Say("Service %s is installed. Start it with: sc.exe start %s", serviceName, serviceName)
	return a.result(map[string]string{"service": serviceName})
}

// newService makes the service, or brings the one that is there up to date.
func newService(m *mgr.Mgr, program string, args []string) (*mgr.Service, error) {
	c := mgr.Config{
		DisplayName: "badgeagent", Description: "Tells a relay how many messages are unread.",
		StartType: mgr.StartAutomatic, ServiceStartName: serviceAccount,
	}
	s, err := m.OpenService(serviceName)
	if err != nil {
		return m.CreateService(serviceName, program, c, args...)
	}
	line := syscall.EscapeArg(program)
	for _, arg := range args {
		line += " " + syscall.EscapeArg(arg)
	}
	c.BinaryPathName, c.ServiceType, c.ErrorControl = line, windows.SERVICE_WIN32_OWN_PROCESS, mgr.ErrorNormal
	if err := s.UpdateConfig(c); err != nil {
		_ = s.Close() // the first error is told
		return nil, err
	}
	return s, nil
}

func (a *app) uninstallService() error {
	if a.DryRun {
		return a.Would("stop and remove the service %s", serviceName)
	}
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("reach the service manager (as an administrator?): %w", err)
	}
	defer m.Disconnect() //nolint:errcheck // nothing was written through it
	s, err := m.OpenService(serviceName)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		a.Say("Service %s is not installed.", serviceName)
		return a.result(struct{}{})
	}
	if err != nil {
		return fmt.Errorf("open service: %w", err)
	}
	defer s.Close()
	_, _ = s.Control(svc.Stop) // it may not be running
	if err := s.Delete(); err != nil {
		return fmt.Errorf("remove service: %w", err)
	}
	_ = eventlog.Remove(serviceName) // what it has logged stays readable
	a.Say("Service %s is removed.", serviceName)
	return a.result(struct{}{})
}

// protect lets only the system, administrators, the owner and the service's own
// account into a directory, and into what is made in it: the modes that say
// so elsewhere mean nothing here, and ProgramData is open to every user.
func protect(dir string) error {
	acl := "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)"
	if sid, _, _, err := windows.LookupSID("", serviceAccount); err == nil { // once it is installed
		acl += "(A;OICI;FA;;;" + sid.String() + ")"
	}
	descriptor, err := windows.SecurityDescriptorFromString(acl)
	if err != nil {
		return fmt.Errorf("protect %s: %w", dir, err)
	}
	entries, _, err := descriptor.DACL()
	if err != nil {
		return fmt.Errorf("protect %s: %w", dir, err)
	}
	const what = windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
	if err := windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, what, nil, nil, entries, nil); err != nil {
		return fmt.Errorf("protect %s: %w", dir, err)
	}
	return nil
}
