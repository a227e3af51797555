package minilog

import (
	"log/slog"
	"time"
)

// Record is a finished record on its way between hosts.
type Record struct {
	Time         time.Time
	Level        slog.Level
	Source, Text string
}

// MaxRecord bounds the text of a record of another host, in bytes.
const MaxRecord = 64 << 10

// SetNode sends records of level Info and above to another host, which node
// names, by send; "" ends that. send may take its time: records that come
// meanwhile wait, and are counted and dropped when they are too many.
func (l *Log) SetNode(node string, send func(Record)) error {
	if node == "" {
		return l.set(Mesh, "", nil)
	}
	return l.set(Mesh, node, newQueue(func(e *entry) {
		if e.level >= slog.LevelInfo {
			send(Record{e.time, e.level, e.source, e.text})
		}
	}))
}

// Node is where records are sent, "" for nowhere.
func (l *Log) Node() string { l.mu.Lock(); defer l.mu.Unlock(); return l.node }

// Take prints a record of another host, unless the level or a filter keeps it
// out. It is not sent on.
func (l *Log) Take(host string, r Record) {
	if r.Level < l.Level() {
		return
	}
	text := r.Text
	if len(text) > MaxRecord {
		text = text[:MaxRecord] + " [cut]"
	}
	l.write(&entry{time: r.Time, level: r.Level, source: printable(r.Source), text: printable(host) + ": " + printable(text), foreign: true})
}
