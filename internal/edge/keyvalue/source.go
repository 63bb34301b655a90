package keyvalue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Check tells whether a pair is within the limits. The error is for the caller.
func Check(p Pair) error {
	switch {
	case p.Key == "":
		return errors.New("a key is empty")
	case len(p.Key) > MaxKey:
		return fmt.Errorf("a key has %d bytes; the maximum is %d", len(p.Key), MaxKey)
	case len(p.Value) > MaxValue:
		return fmt.Errorf("the value of key %q has %d bytes; the maximum is %d", p.Key, len(p.Value), MaxValue)
	}
	return nil
}

// ReadSource reads the pairs of an import source, a file of at most MaxBytes:
//
//	{"data": [{"key": "key1", "value": "value1"}]}
//
// as the CloudFront developer guide has it ("File format for key-value pairs"). The
// error is for whoever made the file.
func ReadSource(r io.Reader) ([]Pair, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the import source cannot be read: %w", err)
	case len(text) > MaxBytes:
		return nil, fmt.Errorf("the import source has more than %d bytes", MaxBytes)
	case !utf8.Valid(text):
		return nil, errors.New("the import source is not UTF-8")
	}
	var source struct {
		Data []struct {
			Key   *string `json:"key"`
			Value *string `json:"value"`
		} `json:"data"`
	}
	if err := json.Unmarshal(text, &source); err != nil {
		return nil, fmt.Errorf("the import source is not of the form of key value pairs: %w", err)
	}
	if source.Data == nil {
		return nil, errors.New(`the import source has no "data"`)
	}
	pairs := make([]Pair, 0, len(source.Data))
	seen := make(map[string]bool, len(source.Data))
	for i, d := range source.Data {
		if d.Key == nil || d.Value == nil {
			return nil, fmt.Errorf("pair %d of the import source lacks its key or its value", i)
		}
		p := Pair{Key: *d.Key, Value: *d.Value}
		if err := Check(p); err != nil {
			return nil, err
		}
		if seen[p.Key] {
			return nil, fmt.Errorf("the import source has key %q twice", p.Key)
		}
		seen[p.Key] = true
		pairs = append(pairs, p)
	}
	return pairs, nil
}
