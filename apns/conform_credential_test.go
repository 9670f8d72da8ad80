package apns_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

func TestConformExpiredToken(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		s.resend = true
		s.put(0, 1)
		settle()
		time.Sleep(30 * time.Minute)
		s.sim.NextFor(device(1), apnstest.Answer{Status: 403, Reason: apns.ReasonExpiredProviderToken})
		s.put(1, 1)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		s.want(t, map[apns.Reason]int{"": 2, apns.ReasonExpiredProviderToken: 1})
		if stats := s.pool.Stats(); stats.State != apns.StateUp || stats.TokenAge > 4*time.Second || stats.Connects != 2 {
			t.Errorf("stats %+v, want a new token on a new connection", stats)
		}
		// Again within 20 minutes: no new token can be had.
		s.sim.NextFor(device(2), apnstest.Answer{Status: 403, Reason: apns.ReasonExpiredProviderToken})
		s.put(2, 1)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if stats := s.pool.Stats(); stats.State != apns.StateRefused || stats.TokenAge < 2*time.Second {
			t.Errorf("stats %+v, want the young token kept and the app refused", stats)
		}
	})
}

// TestConformClockSet has a relay start with a wrong clock, which is set right
// after a while: pushes flow within a second, not when the token has aged.
func TestConformClockSet(t *testing.T) {
	for reason, ahead := range map[apns.Reason]time.Duration{
		apns.ReasonInvalidProviderToken: 2 * time.Hour, apns.ReasonExpiredProviderToken: -2 * time.Hour,
	} {
		t.Run(string(reason), func(t *testing.T) {
			conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
				if err := s.token.SignAhead(ahead); err != nil {
					t.Fatal(err)
				}
				s.resend = true
				s.put(0, 100)
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				refused := reasons(s.reset())
				if stats := s.pool.Stats(); stats.State != apns.StateRefused || stats.Refused != reason || len(refused) != 1 || refused[reason] > 10 {
					t.Fatalf("%+v, results %v; want single probes refused with %s", stats, refused, reason)
				}
				s.token.SetClock(-ahead)
				time.Sleep(time.Second + 500*time.Millisecond) // to look at the clock, and to connect
				synctest.Wait()
				if stats, n := s.pool.Stats(), s.accepted(); stats.State != apns.StateUp || n < 80 {
					t.Errorf("after the clock was set: %+v, %d accepted", stats, n)
				}
			})
		})
	}
}

// TestConformClockSetMeanwhile has the clock set while all is well: that alone
// changes nothing. Then Apple finds the token expired on one connection, as after
// a suspension: no connection shows two tokens within minutes.
func TestConformClockSetMeanwhile(t *testing.T) {
	conform(t, apnstest.Config{StreamLimit: 1}, apns.Config{}, func(t *testing.T, s *simulation) {
		s.resend = true
		for i := range 200 { // enough at a time for several connections
			s.put(i, 1)
		}
		settle()
		s.token.SetClock(-time.Hour)
		s.put(200, 100)
		settle()
		if stats := s.pool.Stats(); s.accepted() != 300 || stats.TokenAge == 0 {
			t.Fatalf("%+v, %d accepted; want all with the token there was", stats, s.accepted())
		}
		s.sim.NextFor(device(300), apnstest.Answer{Status: 403, Reason: apns.ReasonExpiredProviderToken})
		s.put(300, 100)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if stats := s.pool.Stats(); stats.State != apns.StateUp || s.accepted() != 400 || stats.TokenAge > 5*time.Second {
			t.Errorf("%+v, %d accepted; want all, with a new token", stats, s.accepted())
		}
		if n := s.sim.ClientFaults()[apnstest.ClientTokenUpdates]; n > 0 {
			t.Errorf("%d connections were shown another token too soon", n)
		}
	})
}

func TestConformRefusedApp(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		s.sim.RemoveTeamKey(testTeam, testKeyID)
		s.resend = true
		s.put(0, 100)
		settle()
		s.want(t, map[apns.Reason]int{apns.ReasonInvalidProviderToken: 1})
		if stats := s.pool.Stats(); stats.State != apns.StateRefused || stats.Refused != apns.ReasonInvalidProviderToken {
			t.Errorf("stats %+v", stats)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(s.reset()); n < 5 || n > 20 {
			t.Errorf("%d pushes in ten minutes, want single probes", n)
		}
		if _, queued := s.took(); queued < 80 {
			t.Errorf("%d pushes left, want most of them", queued)
		}
		s.sim.AddTeamKey(apnstest.TeamKey{TeamID: testTeam, KeyID: testKeyID, Key: &testKeys().key.PublicKey})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if stats := s.pool.Stats(); stats.State != apns.StateUp || s.accepted() < 70 {
			t.Errorf("after the key came back: %+v, %d accepted", stats, s.accepted())
		}
	})
}

// TestConformRefusedAppIdle has nothing to push while the app is refused: what
// comes then tries at once whether APNs takes it again.
func TestConformRefusedAppIdle(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		s.sim.RemoveTeamKey(testTeam, testKeyID)
		s.put(0, 1)
		settle()
		s.want(t, map[apns.Reason]int{apns.ReasonInvalidProviderToken: 1})
		s.sim.AddTeamKey(apnstest.TeamKey{TeamID: testTeam, KeyID: testKeyID, Key: &testKeys().key.PublicKey})
		time.Sleep(10*time.Minute + 30*time.Second) // between two probes
		s.put(1, 10)
		time.Sleep(time.Second)
		synctest.Wait()
		if stats, n := s.pool.Stats(), s.accepted(); stats.State != apns.StateUp || n != 10 {
			t.Errorf("a second after there was something to push: %+v, %d accepted", stats, n)
		}
	})
}

func TestConformSetCredential(t *testing.T) {
	conform(t, apnstest.Config{}, apns.Config{}, func(t *testing.T, s *simulation) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s.put(0, 10)
		settle()
		s.sim.RemoveTeamKey(testTeam, testKeyID)
		s.sim.AddTeamKey(apnstest.TeamKey{TeamID: testTeam, KeyID: "KEY0000002", Key: &key.PublicKey})
		fresh, err := apns.NewTokenSource(apns.TokenConfig{Key: key, KeyID: "KEY0000002", TeamID: testTeam})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.pool.SetCredential(apns.Credential{Token: fresh}); err != nil {
			t.Fatal(err)
		}
		s.put(10, 10)
		settle()
		s.want(t, map[apns.Reason]int{"": 20})
		if stats := s.pool.Stats(); stats.Connects != 2 || stats.Connections != 1 {
			t.Errorf("stats %+v, want one connection in place of another", stats)
		}
	})
}

// TestConformLogClaimsNothingOfANewCredential replaces a refused key by one
// that is wrong as well.
func TestConformLogClaimsNothingOfANewCredential(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	conform(t, apnstest.Config{}, apns.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, s *simulation) {
		log.Reset()
		s.sim.RemoveTeamKey(testTeam, testKeyID)
		s.put(0, 1)
		settle()
		wrong, err := apns.NewTokenSource(apns.TokenConfig{Key: key, KeyID: "KEY0000002", TeamID: testTeam})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.pool.SetCredential(apns.Credential{Token: wrong}); err != nil {
			t.Fatal(err)
		}
		s.put(1, 1)
		settle()
		s.stop()
		for message, want := range map[string]int{"apns refuses the app's": 2, "another credential": 1, "takes the app's credential": 0} {
			if got := strings.Count(log.String(), message); got != want {
				t.Errorf("%q is said %d times, want %d:\n%s", message, got, want, log.String())
			}
		}
	})
}

// TestConformRenewalEndsNoRefusal has a key refused for longer than a token
// lives: its renewal neither ends the refusal nor counts as a clock that was
// set. Only then the clock is set, and the log says so.
func TestConformRenewalEndsNoRefusal(t *testing.T) {
	var log bytes.Buffer
	conform(t, apnstest.Config{}, apns.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, s *simulation) {
		log.Reset()
		s.sim.RemoveTeamKey(testTeam, testKeyID)
		s.resend = true
		s.put(0, 100)
		time.Sleep(53 * time.Minute)
		synctest.Wait()
		if stats := s.pool.Stats(); stats.State != apns.StateRefused || stats.TokenAge > 3*time.Minute || len(s.reset()) > 70 {
			t.Errorf("after a renewal: %+v; want the app refused", stats)
		}
		s.token.SetClock(2 * time.Hour)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s.stop()
		for message, want := range map[string]int{"apns refuses the app's": 2, "clock was set": 1, "takes the app's credential": 0} {
			if got := strings.Count(log.String(), message); got != want {
				t.Errorf("%q is said %d times, want %d:\n%s", message, got, want, log.String())
			}
		}
	})
}

func TestConformCertificate(t *testing.T) {
	authority := testAuthority()
	cert, err := authority.ClientCertificate([]string{testTopic}, apnstest.Production)
	if err != nil {
		t.Fatal(err)
	}
	conform(t, apnstest.Config{ClientCAs: authority.Pool()}, apns.Config{Certificate: &cert}, func(t *testing.T, s *simulation) {
		s.put(0, 300)
		settle()
		s.want(t, map[apns.Reason]int{"": 300})
		if stats := s.pool.Stats(); stats.CertificateEnd.IsZero() || stats.TokenAge != 0 {
			t.Errorf("stats %+v", stats)
		}
	})
}
