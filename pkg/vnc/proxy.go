// Package vnc speaks RFB: client, server and proxy, and the formats of recordings.
package vnc

// Proxy is filled in by its owner.
type Proxy struct{}
