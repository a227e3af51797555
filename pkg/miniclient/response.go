package miniclient

import (
	"encoding/json"
	"strings"
)

// Response is one message of an answer: a batch of what hosts answered.
type Response struct {
	Resp     Responses
	Rendered string   // the batch as text, without errors
	More     bool     // more messages belong to this answer
	Status   bool     // a progress message, its text in Rendered
	Suggest  []string // the answer to a request for completions
}

// HostResponse is what one host answered.
type HostResponse struct {
	Host     string
	Response string
	Header   []string
	Tabular  [][]string
	Error    string          // "" for success
	Data     json.RawMessage // depends on the command; nil for null
}

// Responses is one element per host.
type Responses []*HostResponse

// Failed returns those that carry an error.
func (r Responses) Failed() Responses {
	var failed Responses
	for _, h := range r {
		if h != nil && h.Error != "" {
			failed = append(failed, h)
		}
	}
	return failed
}

// Error is a line `Error (<host>): <text>` for each that failed.
func (r Responses) Error() string {
	var b strings.Builder
	for _, h := range r.Failed() {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("Error (" + h.Host + "): " + h.Error)
	}
	return b.String()
}
