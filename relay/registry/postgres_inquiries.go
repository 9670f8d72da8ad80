package registry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"sync/atomic"
	"time"

	"badgerelay/relay"
)

// inquiryChannel is where a relay asks the others what they have of a mailbox. The
// question is in the notification, an answer is a row of inquiry_answers: it may be
// larger than a notification.
const inquiryChannel = "badgerelay_inquiries"

// Bounds of inquiries. Ours: people ask, and few at a time.
const (
	maxInquiries    = 16 // that wait to be answered; those beyond are not
	inquiryWorkers  = 2
	inquiryPoll     = 25 * time.Millisecond // how often answers are looked for
	inquiryLifetime = time.Minute           // after which an answer that nobody took is deleted
	inquiryTimeout  = 5 * time.Second       // of making and keeping one
)

// Inquiry asks what a relay has of a mailbox.
type Inquiry struct {
	ID           string               `json:"id"`    // new for each
	Relay        string               `json:"relay"` // the instance that asks
	Organization relay.OrganizationID `json:"organization"`
	Mailbox      string               `json:"mailbox"`
}

// inquiries are those that wait to be answered, and who answers them.
type inquiries struct {
	asked  chan Inquiry
	answer atomic.Pointer[func(context.Context, Inquiry) (name string, answer []byte)]
}

// OnInquiry has fn called with what other relays ask, and with what this one does,
// while Run is running: it returns the relay's name and its answer; an empty name is
// none. fn is called from several goroutines. There is one fn; one call may still be
// under way when cancel returns.
func (p *postgresServer) OnInquiry(fn func(context.Context, Inquiry) (name string, answer []byte)) (cancel func()) {
	p.inquiries.answer.Store(&fn)
	return func() { p.inquiries.answer.Store(nil) }
}

// Inquire asks all relays, and returns the answers by the relays' names. It waits until
// enough says that all are there that are to be waited for, or until ctx is done, which
// is no error: then some have not answered. It does not count among the operations
// that are measured, because it waits for relays and not for the database.
func (p *postgresServer) Inquire(ctx context.Context, q Inquiry, enough func(map[string][]byte) bool) (answers map[string][]byte, err error) {
	q.ID = rand.Text()
	question, err := json.Marshal(q)
	if err != nil {
		return nil, err // strings and numbers can be encoded
	}
	if _, err = p.pool.Exec(ctx, `SELECT pg_notify($1, $2)`, inquiryChannel, string(question)); err != nil {
		return nil, wrapUnavailable(err)
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = p.pool.Exec(last, `DELETE FROM inquiry_answers WHERE inquiry = $1`, q.ID) // else its time passes
	}()
	answers = map[string][]byte{}
	tick := time.NewTicker(inquiryPoll)
	defer tick.Stop()
	for !enough(answers) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return answers, nil
		}
		found, err := p.inquiryAnswers(ctx, q.ID)
		if err != nil && ctx.Err() == nil {
			return answers, wrapUnavailable(err)
		}
		maps.Copy(answers, found)
	}
	return answers, nil
}

func (p *postgresServer) inquiryAnswers(ctx context.Context, id string) (map[string][]byte, error) {
	rows, err := p.pool.Query(ctx, `SELECT relay, answer FROM inquiry_answers WHERE inquiry = $1`, id)
	found := map[string][]byte{}
	err = pgEachRow(rows, err, func(row scanner) error {
		var name string
		var answer []byte
		err := row.Scan(&name, &answer)
		found[name] = answer
		return err
	})
	return found, err
}

// inquiryHeard has a question answered. What can't be read comes from a version that
// says more, or from somebody else.
func (p *postgresServer) inquiryHeard(payload string) {
	var q Inquiry
	if json.Unmarshal([]byte(payload), &q) != nil || q.ID == "" {
		return
	}
	select {
	case p.inquiries.asked <- q:
	default: // who asks waits in vain, and says so
	}
}

// answerInquiries answers what other relays ask until ctx is done.
func (p *postgresServer) answerInquiries(ctx context.Context) {
	for {
		select {
		case q := <-p.inquiries.asked:
			if err := p.answerInquiry(ctx, q); err != nil {
				p.log.Debug("could not answer another relay", "error", err) // it says so where it was asked
			}
		case <-ctx.Done():
			return
		}
	}
}

func (p *postgresServer) answerInquiry(ctx context.Context, q Inquiry) error {
	fn := p.inquiries.answer.Load()
	if fn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, inquiryTimeout)
	defer cancel()
	name, answer := (*fn)(ctx, q)
	if name == "" {
		return nil
	}
	_, err := p.pool.Exec(ctx, `WITH old AS (DELETE FROM inquiry_answers WHERE answered_at < `+pgNow+` - $1)
		INSERT INTO inquiry_answers (inquiry, relay, answered_at, answer) VALUES ($2, $3, `+pgNow+`, $4) ON CONFLICT DO NOTHING`,
		inquiryLifetime.Milliseconds(), q.ID, name, answer)
	return err
}
