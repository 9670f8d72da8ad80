package check

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	var date string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", date)
	}))
	defer server.Close()
	for _, want := range []time.Duration{0, time.Hour, -time.Minute} {
		date = time.Now().Add(-want).UTC().Format(http.TimeFormat)
		if got, err := Clock(t.Context(), server.Client(), server.URL); err != nil || (got-want).Abs() > 2*time.Second {
			t.Errorf("got %v, %v, want about %v", got, err, want)
		}
	}
	date = "soon"
	if _, err := Clock(t.Context(), server.Client(), server.URL); err == nil {
		t.Error("a date that is none is taken")
	}
}
