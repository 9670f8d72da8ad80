package check

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// Clock returns how far this machine's clock is ahead of that of the server at an
// address, to the second: by the Date of an answer, which is cut to that. 0: it can't be
// told apart, the time that the answer took considered.
func Clock(ctx context.Context, client *http.Client, address string) (ahead time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, response.Body) // a HEAD has none
	_ = response.Body.Close()                 // read to its end
	theirs, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return 0, errors.New("the relay's metadata server does not tell its time")
	}
	half := time.Since(began) / 2
	ahead = began.Add(half).Sub(theirs.Add(time.Second / 2))
	if ahead.Abs() <= half+time.Second/2 {
		return 0, nil
	}
	return ahead.Round(time.Second), nil
}
