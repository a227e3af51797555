package share

import (
	"context"
	"time"

	"minimega/internal/cluster"
	"minimega/internal/minilog"
)

// logName is the kind of a request that carries records of a log.
const logName = "log"

// Logs sends this host's log to another, and takes theirs.
type Logs struct {
	cluster *cluster.Cluster
	log     *minilog.Log
}

// NewLogs takes the logs of hosts that send theirs here.
func NewLogs(c *cluster.Cluster, log *minilog.Log) *Logs {
	cluster.Serve(c, logName, func(_ context.Context, from string, r minilog.Record, _ func(none)) (none, error) {
		log.Take(from, r)
		return none{}, nil
	})
	return &Logs{cluster: c, log: log}
}

// sendTime bounds how long one record may take; others wait meanwhile.
const sendTime = 2 * time.Second

// SendTo sends the log to a host from now on, "" to none.
func (l *Logs) SendTo(host string) error {
	return l.log.SetNode(host, func(r minilog.Record) {
		ctx, cancel := context.WithTimeout(context.Background(), sendTime)
		defer cancel()
		// A host that is not there misses records; to log that would be one more.
		_, _ = cluster.Ask[none, none](ctx, l.cluster, host, logName, r, nil)
	})
}

// Node is where the log is sent, "" for nowhere.
func (l *Logs) Node() string { return l.log.Node() }
