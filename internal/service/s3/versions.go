package s3

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"lapwing.dev/lapwing/internal/aws"
)

// current returns the newest version of a key, which may be a delete marker,
// and its id; nil if there is none.
func (s *Service) current(bucketName, key string) (id string, v *version) {
	// The null version has its own place, behind the others.
	if item, ok := s.versions.Get(versionKey(bucketName, key, nullVersion)); ok {
		id, v = nullVersion, &item.Value
	}
	for item := range s.versions.Scan(versionKey(bucketName, key, ""), "") {
		if v == nil || item.Value.Sequence > v.Sequence {
			_, id = splitVersionKey(bucketName, item.Key)
			v = &item.Value
		}
		break // the first is the newest of the others
	}
	return id, v
}

// find returns the version that a request names: by its id, or the current one
// for "". The current version may not be a delete marker.
func (s *Service) find(bucketName, key, versionID string) (id string, v *version, err error) {
	if versionID == "" {
		id, v = s.current(bucketName, key)
		if v == nil {
			return "", nil, noSuchKey(key)
		}
		if v.DeleteMarker {
			return "", nil, markedDeleted(noSuchKey(key), id)
		}
		return id, v, nil
	}
	if err := checkVersionID(versionID); err != nil {
		return "", nil, err
	}
	item, ok := s.versions.Get(versionKey(bucketName, key, versionID))
	if !ok {
		return "", nil, with(with(fail("NoSuchVersion", "The specified version does not exist."), "Key", key), "VersionId", versionID)
	}
	if item.Value.DeleteMarker {
		e := fail("MethodNotAllowed", "The specified method is not allowed against this resource.")
		e = markedDeleted(with(e, "ResourceType", "DeleteMarker"), versionID)
		e.Header.Set("Allow", "DELETE")
		e.Header.Set("Last-Modified", item.Value.Modified.Format(http.TimeFormat))
		return "", nil, e
	}
	return versionID, &item.Value, nil
}

// checkVersionID refuses what cannot be a version id.
func checkVersionID(id string) error {
	const length = 32
	if id == nullVersion || len(id) == length {
		return nil
	}
	return invalidArgument("versionId", id, "Invalid version id specified")
}

// shownID is the version id as answers show it: buckets that never had
// versioning show none.
func (b *bucket) shownID(id string) *string {
	if b.Versioning == "" {
		return nil
	}
	return optional(id)
}

// write makes v the newest version of a key, if the conditions hold, and
// returns its id. It takes over v's blobs, which the caller holds, whatever
// comes of it.
func (s *Service) write(ctx context.Context, bucketName, key string, v *version, c writeConditions) (b *bucket, id string, err error) {
	b, unlock, err := s.lockKey(bucketName, key)
	if err != nil {
		s.references.release(v.digests())
		return nil, "", err
	}
	defer unlock()
	id, err = s.writeLocked(ctx, b, bucketName, key, v, c)
	return b, id, err
}

// writeLocked is write for callers that have locked the key.
func (s *Service) writeLocked(ctx context.Context, b *bucket, bucketName, key string, v *version, c writeConditions) (id string, err error) {
	_, current := s.current(bucketName, key)
	if err := c.check(key, current); err != nil {
		s.references.release(v.digests())
		return "", err
	}
	v.Sequence, v.Modified = s.stamp()
	id = nullVersion
	if b.Versioning == versioningEnabled {
		id = newVersionID(v.Sequence)
	}
	// From here on a client that goes away must not leave it open what
	// happened.
	ctx = context.WithoutCancel(ctx)
	recordKey := versionKey(bucketName, key, id)
	old, replaces := s.versions.Get(recordKey)
	if replaces {
		_, err = s.versions.Update(ctx, recordKey, old.Revision, *v)
	} else {
		_, err = s.versions.Create(ctx, recordKey, *v)
	}
	if err != nil {
		// If it is open whether the record was written, its blobs must
		// stay; the next start knows.
		if keepsNothing(err) {
			s.references.release(v.digests())
		}
		return "", err
	}
	if replaces {
		s.references.release(old.Value.digests())
	}
	return id, nil
}

// remove deletes one version for good. There may be none.
func (s *Service) remove(ctx context.Context, bucketName, key, id string) (removed *version, err error) {
	recordKey := versionKey(bucketName, key, id)
	item, ok := s.versions.Get(recordKey)
	if !ok {
		return nil, nil
	}
	if err := s.versions.Delete(context.WithoutCancel(ctx), recordKey, item.Revision); err != nil {
		return nil, err
	}
	s.references.release(item.Value.digests())
	return &item.Value, nil
}

// byAge sorts the versions of a key, the newest first.
func byAge(group []entry[version]) []entry[version] {
	slices.SortFunc(group, func(a, b entry[version]) int {
		return cmp.Compare(b.value.Sequence, a.value.Sequence)
	})
	group[0].latest = true
	return group
}

// currentOnly leaves of the versions of a key the newest, unless it is a delete
// marker.
func currentOnly(group []entry[version]) []entry[version] {
	group = byAge(group)[:1]
	if group[0].value.DeleteMarker {
		return nil
	}
	return group
}

// dropStrayParts removes the parts whose upload is gone: a crash may come
// between the two.
func (s *Service) dropStrayParts(ctx context.Context) error {
	live := map[string]bool{}
	for u := range s.uploads.Scan("", "") {
		live[uploadID(u)] = true
	}
	for p := range s.parts.Scan("", "") {
		if !live[partUpload(p.Key)] {
			if err := s.parts.Delete(ctx, p.Key, p.Revision); err != nil {
				return err
			}
		}
	}
	return nil
}

// markedDeleted says in the error's headers that there is a delete marker.
func markedDeleted(e *aws.Error, id string) *aws.Error {
	e.Header = http.Header{"X-Amz-Delete-Marker": {"true"}, "X-Amz-Version-Id": {id}}
	return e
}
