package ingest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/relay/internal/service"
)

func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuotas(&Config{CallsPerSecond: 10, PublishEventsPerSecond: 100, MaxBatchEvents: 500})
		for i := range 20 {
			if err := q.take(1, 0); err != nil {
				t.Fatalf("call %d of the burst of 20: %v", i+1, err)
			}
		}
		r, ok := errors.AsType[*service.Refusal](q.take(1, 0))
		if !ok || r.RetryAfter != 100*time.Millisecond {
			t.Fatalf("call 21: got %+v, want a refusal for 100 ms", r)
		}
		if err := q.take(2, 0); err != nil {
			t.Errorf("another organization was refused: %v", err)
		}
		time.Sleep(r.RetryAfter - time.Millisecond)
		if q.take(1, 0) == nil {
			t.Error("taken 1 ms too early")
		}
		time.Sleep(time.Millisecond)
		if err := q.take(1, 0); err != nil {
			t.Errorf("after the time that was told: %v", err)
		}
	})
}

func TestQuotaOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuotas(&Config{PublishEventsPerSecond: 100, MaxBatchEvents: 500})
		if err := q.take(1, 500); err != nil {
			t.Fatalf("a full batch is never beyond the quota: %v", err)
		}
		r, ok := errors.AsType[*service.Refusal](q.take(1, 50))
		if !ok || r.RetryAfter != 500*time.Millisecond {
			t.Fatalf("got %+v, want a refusal for 500 ms", r)
		}
		time.Sleep(r.RetryAfter)
		if err := q.take(1, 50); err != nil {
			t.Errorf("after the time that was told: %v", err)
		}
	})
}

func TestQuotaOff(t *testing.T) {
	q := newQuotas(&Config{CallsPerSecond: -1, PublishEventsPerSecond: -1})
	for range 10_000 {
		if err := q.take(1, maxBatchEvents); err != nil {
			t.Fatal(err)
		}
	}
}
