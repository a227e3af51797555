package command

import "minimega/pkg/minicli"

// What most commands answer with.

// done is the answer of a command that has nothing to say.
func done(err error) (*minicli.Response, error) {
	if err != nil {
		return nil, err
	}
	return &minicli.Response{}, nil
}

// text answers with plain text.
func text(s string) (*minicli.Response, error) {
	return &minicli.Response{Response: s}, nil
}

// table answers with rows under a header.
func table(header []string, rows [][]string) (*minicli.Response, error) {
	return &minicli.Response{Header: header, Tabular: rows}, nil
}
