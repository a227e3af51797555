package share

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"minimega/internal/cluster"
	"minimega/internal/vlan"
	"minimega/pkg/meshage"
)

// Requests and topics about VLANs.
const (
	proposeName = "vlan-propose"
	syncName    = "vlan-sync"
	vlanTopic   = "vlans"
)

// compareEvery is how often this host compares its VLANs with one other, for
// what a broadcast did not bring.
const compareEvery = 10 * time.Second

// VLANs keeps the numbers of VLANs the same on all hosts.
type VLANs struct {
	cluster  *cluster.Cluster
	registry *vlan.Registry
	log      *slog.Logger
	follow   *followers
	news     chan []vlan.Claim
}

// syncQuery is one half of a comparison: the digest of the one who asks, and
// the claims that it thinks the other lacks.
type syncQuery struct {
	Digest vlan.Digest  `json:"digest,omitempty"`
	Claims []vlan.Claim `json:"claims,omitempty"`
}

// syncReport is the other half.
type syncReport struct {
	Digest vlan.Digest  `json:"digest"`
	Claims []vlan.Claim `json:"claims,omitempty"`
}

// NewVLANs lets other hosts ask for, and tell, numbers of VLANs.
func NewVLANs(c *cluster.Cluster, r *vlan.Registry, log *slog.Logger) *VLANs {
	v := &VLANs{cluster: c, registry: r, log: log, follow: newFollowers(), news: make(chan []vlan.Claim, 1024)}
	cluster.Serve(c, proposeName, func(_ context.Context, _ string, claim vlan.Claim, _ func(none)) ([]vlan.Claim, error) {
		return r.Answer(claim)
	})
	cluster.Serve(c, syncName, func(_ context.Context, _ string, q syncQuery, _ func(none)) (syncReport, error) {
		if _, err := r.Merge(q.Claims); err != nil {
			return syncReport{}, err
		}
		report := syncReport{Digest: r.Digest()}
		if len(q.Digest) > 0 {
			report.Claims = r.ClaimsFor(q.Digest)
		}
		return report, nil
	})
	return v
}

// Join begins to agree with the members of the mesh.
func (v *VLANs) Join(mesh meshage.Mesh) {
	mesh.Subscribe(vlanTopic, v.hear)
	v.registry.SetPeers(v)
	v.follow.wg.Go(v.send)
	v.follow.follow(mesh, func(ctx context.Context, e meshage.Event) {
		if !e.Left && e.Member.Name != v.cluster.Host() {
			v.compare(ctx, e.Member.Name)
		}
	})
	v.follow.every(compareEvery, func(ctx context.Context) {
		if peers := v.cluster.Peers(); len(peers) > 0 {
			v.compare(ctx, peers[rand.IntN(len(peers))])
		}
	})
}

// Close ends the agreement: what is deleted here afterwards is not elsewhere.
func (v *VLANs) Close() error {
	v.registry.SetPeers(nil)
	v.follow.close()
	return nil
}

// compareTime bounds a comparison with one host.
const compareTime = 5 * time.Second

// compare makes this host and another know the same.
func (v *VLANs) compare(ctx context.Context, host string) {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	report, err := cluster.Ask[syncReport, none](ctx, v.cluster, host, syncName, syncQuery{Digest: v.registry.Digest()}, nil)
	if err == nil {
		_, err = v.registry.Merge(report.Claims)
	}
	if err == nil {
		if lacking := v.registry.ClaimsFor(report.Digest); len(lacking) > 0 {
			_, err = cluster.Ask[syncReport, none](ctx, v.cluster, host, syncName, syncQuery{Claims: lacking}, nil)
		}
	}
	if err != nil && ctx.Err() == nil {
		v.log.Debug("VLANs could not be compared; they are again later", "host", host, "err", err)
	}
}

// Propose asks all other hosts for their answer to a claim.
func (v *VLANs) Propose(ctx context.Context, c vlan.Claim) (against []vlan.Claim, asked int) {
	peers := v.cluster.Peers()
	var mu sync.Mutex // guards against
	_ = cluster.Each(ctx, peers, func(ctx context.Context, host string) error {
		answer, err := cluster.Ask[[]vlan.Claim, none](ctx, v.cluster, host, proposeName, c, nil)
		mu.Lock()
		defer mu.Unlock()
		against = append(against, answer...)
		return err
	})
	return against, len(peers)
}

// Publish tells all other hosts of claims, soon. What is too much at once they
// learn when they compare.
func (v *VLANs) Publish(claims []vlan.Claim) {
	select {
	case v.news <- claims:
	default:
	}
}

// maxNews bounds the claims of one broadcast.
const maxNews = 1000

// send broadcasts what Publish was given.
func (v *VLANs) send() {
	for {
		select {
		case <-v.follow.ctx.Done():
			return
		case claims := <-v.news:
			mesh := v.cluster.Mesh()
			payload, err := json.Marshal(claims)
			if err == nil && mesh != nil && len(claims) <= maxNews {
				err = mesh.Broadcast(v.follow.ctx, vlanTopic, payload)
			}
			if err != nil && v.follow.ctx.Err() == nil {
				v.log.Debug("news of VLANs not sent", "err", err)
			}
		}
	}
}

// hear takes in a broadcast.
func (v *VLANs) hear(from string, payload []byte) {
	var claims []vlan.Claim
	err := json.Unmarshal(payload, &claims)
	if err == nil {
		_, err = v.registry.Merge(claims)
	}
	if err != nil {
		v.log.Warn("another host tells VLANs that make no sense", "host", from, "err", err)
	}
}
