package certs

import (
	"badgerelay/auth/audience"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // #nosec G505 -- RFC 5280, section 4.2.1.2 makes a subject key identifier with it
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// FriendlyName is the name by which administrators know the certificate
// (Configuring push notifications proxying, step 1; read 2026-11).
const FriendlyName = "Exchange S2S OAuth"

// Of the certificates that a Store makes.
const (
	storeKeyBits  = 2048
	validityYears = 5 // as real on-premises ones
	// PublishNotice is the notice that a roll-over gives without being asked
	// (Set-AuthConfig, read 2026-11).
	PublishNotice = 48 * time.Hour
	// Overlap is how long the previous certificate stays after a roll-over.
	// Ours: twice as long as the longest token it may have signed lives, a day.
	Overlap = 48 * time.Hour
	// clockSkew is how far a relay's clock may be behind: that of .NET's token
	// handlers.
	clockSkew = 5 * time.Minute
)

// Errors of a Store.
var (
	// ErrNoCertificate: there is no certificate in the asked place.
	ErrNoCertificate = errors.New("no certificate")
	// ErrShortNotice: less than PublishNotice to the effective date; confirm it.
	ErrShortNotice = errors.New("effective date is less than 48 hours away")
	// ErrNotEffective: the next certificate's date has not come; confirm it.
	ErrNotEffective = errors.New("the next certificate is not effective yet")
	// ErrStaged: a next certificate is staged already; confirm its replacement.
	ErrStaged = errors.New("a next certificate is staged already")
	// ErrOverlap: tokens that the previous certificate signed may still be in
	// use; confirm its end.
	ErrOverlap = errors.New("the previous certificate is in its overlap")
)

// DamagedError is a file of a Store that holds something else than was written.
type DamagedError struct {
	File string
	Err  error
}

// Error names the file, and what is wrong with it.
func (e *DamagedError) Error() string { return e.File + " is damaged: " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *DamagedError) Unwrap() error { return e.Err }

// Store keeps an organization's signing certificates in a directory: the
// current one, the next with its effective date, and the previous.
//
// Keys are PKCS #8 in PEM with mode 0600, certificates plain DER, and
// state.json says which is which. Each change writes new files and then
// replaces state.json, all synced, so that a crash leaves either state whole, and
// deletes the files of what the state has no more; others that no state names are
// left-overs of a crash and harmless. One process changes a
// directory at a time, which a lock file sees to where the system has locks.
type Store struct{ dir string }

// OpenStore returns the store in dir, and creates dir with mode 0700 if it is
// not there.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create certificate directory: %w", err)
	}
	return &Store{dir: dir}, KeepOwner(dir)
}

// Slot is a certificate of a store, without its key.
type Slot struct {
	Thumbprint   string    `json:"thumbprint"`
	FriendlyName string    `json:"friendlyName"`
	Domain       string    `json:"domain"`
	NotBefore    time.Time `json:"notBefore"`
	NotAfter     time.Time `json:"notAfter"`
	CreatedAt    time.Time `json:"createdAt"`
	// EffectiveAt is when the next one is to be published; zero for others.
	EffectiveAt time.Time `json:"effectiveAt,omitzero"`
	// RetireAt is when the overlap of the previous one is over; zero for
	// others, and for one that ended before it was replaced.
	RetireAt time.Time `json:"retireAt,omitzero"`
}

// State says which certificates a store has. Each may be nil.
type State struct {
	Current  *Slot `json:"current,omitempty"`
	Next     *Slot `json:"next,omitempty"`
	Previous *Slot `json:"previous,omitempty"`
}

// Pair is a certificate and its key.
type Pair struct {
	Key         *rsa.PrivateKey
	Certificate *x509.Certificate
}

// State reads what the store has. An empty store has nothing, and no error; a state that
// can't be read as one is a DamagedError.
func (s *Store) State() (State, error) {
	var state State
	data, err := os.ReadFile(s.path("state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("read certificate state: %w", err)
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return state, &DamagedError{s.path("state.json"), err}
	}
	return state, nil
}

// Load reads the pair of a slot of State. A nil slot is ErrNoCertificate. It
// checks that key, certificate and thumbprint belong together, and that nobody
// else may read the key. A file that can't be read as what it is, is a DamagedError.
func (s *Store) Load(slot *Slot) (*Pair, error) {
	if slot == nil {
		return nil, ErrNoCertificate
	}
	if len(slot.Thumbprint) != 40 || filepath.Base(slot.Thumbprint) != slot.Thumbprint {
		return nil, fmt.Errorf("%w: thumbprint %q is not one", ErrCertificate, slot.Thumbprint)
	}
	certFile, keyFile := s.path(slot.Thumbprint+".cer"), s.path(slot.Thumbprint+".key")
	der, err := os.ReadFile(certFile)
	if err != nil {
		return nil, unread(certFile, "certificate", err)
	}
	cert, err := Parse(der)
	if err == nil && Thumbprint(cert) != slot.Thumbprint {
		err = fmt.Errorf("%w: its thumbprint is %s", ErrCertificate, Thumbprint(cert))
	}
	if err != nil {
		return nil, &DamagedError{certFile, err}
	}
	text, err := readKey(keyFile)
	if err != nil {
		return nil, unread(keyFile, "key", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, &DamagedError{keyFile, fmt.Errorf("%w: key is not PEM", ErrCertificate)}
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, &DamagedError{keyFile, fmt.Errorf("%w: key: %w", ErrCertificate, err)}
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, &DamagedError{keyFile, fmt.Errorf("%w: it holds the key of another certificate", ErrCertificate)}
	}
	return &Pair{Key: key, Certificate: cert}, nil
}

// unread says why a file of the state could not be read. One that is missing is damage:
// the state names only what was written before.
func unread(file, what string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &DamagedError{file, fs.ErrNotExist}
	}
	return fmt.Errorf("read %s: %w", what, err)
}

// readKey reads a file that only its user and group may read. On Windows a mode
// does not tell who may.
func readKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%w: others may open %s (mode %04o): chmod o-rwx", ErrCertificate, path, mode)
	}
	return os.ReadFile(path)
}

// Current loads the certificate that signs now. None is ErrNoCertificate.
func (s *Store) Current() (*Pair, error) {
	state, err := s.State()
	if err != nil {
		return nil, err
	}
	return s.Load(state.Current)
}

// Ensure returns the current certificate, and makes one for domain if there is
// none that is valid; created says which. A valid one is reused, whatever its
// domain; an ended one becomes the previous. An unreadable one is an error and
// never replaced.
func (s *Store) Ensure(domain string) (pair *Pair, created bool, err error) {
	err = s.change(func(state *State) (bool, error) {
		now := time.Now()
		if state.Current != nil {
			if pair, err = s.Load(state.Current); err != nil {
				return false, err
			}
			if now.Before(pair.Certificate.NotAfter) {
				return false, nil
			}
		}
		slot, fresh, err := s.create(domain, now)
		if err != nil {
			return false, err
		}
		if state.Current != nil {
			state.Previous = state.Current
		}
		state.Current, pair, created = slot, fresh, true
		return true, nil
	})
	if err != nil {
		return nil, false, err
	}
	return pair, created, nil
}

// ExportDER writes the public part as plain DER, the `.cer` that a relay's
// operator registers. It replaces path as a whole.
func ExportDER(path string, cert *x509.Certificate) error {
	return WriteFile(path, cert.Raw, 0o644)
}

// change runs edit on the state under the lock and keeps it if edit says so. What the
// state has no more, its files go: a key that nothing names would stay for ever.
func (s *Store) change(edit func(*State) (bool, error)) error {
	lock := flock.New(filepath.Join(s.dir, ".lock"), flock.SetPermissions(0o600)) // ends with the process
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("lock certificate directory: %w", err)
	}
	defer lock.Unlock() //nolint:errcheck // closing unlocks; nothing was written
	if err := KeepOwner(lock.Path()); err != nil {
		return err
	}
	state, err := s.State()
	if err != nil {
		return err
	}
	before := state // edit leaves the thumbprints of its slots as they are
	changed, err := edit(&state)
	if err != nil || !changed {
		return err
	}
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("encode certificate state: %w", err)
	}
	if err := s.write("state.json", append(data, '\n'), 0o600); err != nil {
		return err
	}
	if err := s.drop(before, state); err != nil {
		return fmt.Errorf("the change is made, and what it replaced can't be deleted: %w", err)
	}
	return nil
}

// create makes a pair and writes it, key first.
func (s *Store) create(domain string, now time.Time) (*Slot, *Pair, error) {
	if !audience.IsRealm(domain) {
		return nil, nil, fmt.Errorf("domain %q is not one", domain)
	}
	pair, err := newPair(domain, now)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate: %w", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(pair.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	slot := &Slot{
		Thumbprint: Thumbprint(pair.Certificate), FriendlyName: FriendlyName, Domain: domain,
		NotBefore: pair.Certificate.NotBefore, NotAfter: pair.Certificate.NotAfter, CreatedAt: now.UTC(),
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	if err := s.write(slot.Thumbprint+".key", text, 0o600); err != nil {
		return nil, nil, err
	}
	return slot, pair, s.write(slot.Thumbprint+".cer", pair.Certificate.Raw, 0o644)
}

// write writes a file for the directory's owner.
func (s *Store) write(name string, data []byte, mode os.FileMode) error {
	if err := WriteFile(s.path(name), data, mode); err != nil {
		return err
	}
	return KeepOwner(s.path(name))
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// newPair makes a key and its self-signed certificate, in the form of
// Exchange's own.
func newPair(domain string, now time.Time) (*Pair, error) {
	key, err := rsa.GenerateKey(rand.Reader, storeKeyBits)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	identifier, err := subjectKeyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	start := now.UTC().Add(-clockSkew).Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: domain},
		DNSNames:     []string{domain},
		NotBefore:    start,
		NotAfter:     start.AddDate(validityYears, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		SubjectKeyId: identifier,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Pair{Key: key, Certificate: cert}, err
}

// subjectKeyID is method 1 of RFC 5280, section 4.2.1.2: the SHA-1 of the
// key's bits.
func subjectKeyID(key *rsa.PublicKey) ([]byte, error) {
	bits, err := asn1.Marshal(struct {
		N *big.Int
		E int
	}{key.N, key.E})
	sum := sha1.Sum(bits) // #nosec G401 -- see the import
	return sum[:], err
}
