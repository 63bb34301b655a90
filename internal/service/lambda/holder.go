package lambda

import (
	"context"

	"lapwing.dev/lapwing/internal/function"
)

// attachments are what operators attach to a function, a published version or
// an alias. They are part of its record, with which they go.
type attachments struct {
	Policy []statement  `json:"policy,omitempty"`
	Async  *asyncRecord `json:"async,omitempty"` // a function's is that of $LATEST
	URL    *urlRecord   `json:"url,omitempty"`   // not of versions
	// Provisioned is of versions and aliases only.
	Provisioned *provisioned `json:"provisioned,omitempty"`
}

// holder is a function, a published version or an alias with its attachments: a
// copy, which write makes the record's.
type holder struct {
	arn       string // with the qualifier, if any
	qualifier string // empty for the function
	revision  string
	attachments
	put func(ctx context.Context, a attachments, revision string) error
}

// holder finds what a qualifier names in e, which may be nil; empty is the
// function. It returns nil where there is nothing of that name.
func (s *Service) holder(e *entry, qualifier string) *holder {
	if e == nil {
		return nil
	}
	if qualifier == "" {
		f := e.function.Value
		return &holder{e.arn, "", f.Revision, f.attachments, func(ctx context.Context, a attachments, revision string) error {
			f.attachments, f.Revision = a, revision
			_, err := s.functions.Update(ctx, e.function.Key, e.function.Revision, f)
			return err
		}}
	}
	arn := qualify(e.arn, qualifier)
	if a, ok := e.aliases[qualifier]; ok {
		record := a.Value
		return &holder{arn, qualifier, record.Revision, record.attachments, func(ctx context.Context, at attachments, revision string) error {
			record.attachments, record.Revision = at, revision
			_, err := s.aliases.Update(ctx, a.Key, a.Revision, record)
			return err
		}}
	}
	if v := e.published(qualifier); v != nil {
		record := v.Value
		return &holder{arn, qualifier, record.Revision, record.attachments, func(ctx context.Context, a attachments, revision string) error {
			record.attachments, record.Revision = a, revision
			_, err := s.versions.Update(ctx, v.Key, v.Revision, record)
			return err
		}}
	}
	return nil
}

// writeHolder stores what h holds. The caller has the lock of its function.
func (s *Service) writeHolder(ctx context.Context, key functionKey, h *holder) error {
	ctx, cancel := writeContext(ctx)
	defer cancel()
	err := h.put(ctx, h.attachments, h.revision)
	s.reload(key)
	return internal(err)
}

// latestAsFunction returns the qualifier of a holder for which $LATEST is the
// function.
func latestAsFunction(qualifier string) string {
	if qualifier == function.Latest {
		return ""
	}
	return qualifier
}
