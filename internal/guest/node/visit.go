package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"minimega/internal/guest/cmdline"
)

const (
	visitPause   = time.Second            // between rounds of visits
	visitFirst   = 100 * time.Millisecond // the same until all pages came once
	visitTimeout = 2 * time.Second
	maxPage      = 1 << 20
)

// visit fetches the pages again and again, and says on the console when one
// comes for the first time or after it did not.
func (m *Machine) visit(ctx context.Context) error {
	reached := map[string]bool{}
	client := &http.Client{Timeout: visitTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil {
		came := 0
		for _, url := range m.Params.Visit {
			name, err := visitOne(ctx, client, url)
			if err == nil {
				came++
			}
			if was := reached[url]; was != (err == nil) {
				reached[url] = err == nil
				m.visited(url, name, err)
			}
		}
		if came == len(m.Params.Visit) {
			pause(ctx, visitPause)
		} else {
			pause(ctx, visitFirst)
		}
	}
	return nil
}

func (m *Machine) visited(url, name string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stdout, "\r\nvisit: %s: %v\r\n", url, err)
		return
	}
	fmt.Fprintf(os.Stdout, "\r\nvisit: %s is %s\r\n", url, name)
}

// visitOne returns the name that the page gives its host.
func visitOne(ctx context.Context, client *http.Client, url string) (name string, err error) {
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(page), "\n")
	name, ok := strings.CutPrefix(line, "hostname: ")
	if !ok || !cmdline.ValidHostname(name) {
		name = "there"
	}
	return name, nil
}
