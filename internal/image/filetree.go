package image

import (
	"path"
	"strings"

	"lapwing.dev/lapwing/internal/image/erofs"
)

// Marks of removed files in layers (OCI image layer specification, Whiteouts).
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// fileTree is a file system in memory, without the bytes of its files. Layers
// are laid over each other in it.
type fileTree struct {
	root  node
	layer int // that is being added: higher than those of all nodes
}

// node is one file of any kind.
type node struct {
	kind kind
	attr erofs.Attr // of a regular file, those of file count
	// layer is the one that the node, or the last node below it, comes from.
	layer int

	children map[string]*node // of a directory
	target   string           // of a symbolic link
	file     erofs.File       // several names can have one
}

func newFileTree() fileTree {
	return fileTree{root: node{kind: kindDir, attr: erofs.Attr{Mode: 0o755}, children: map[string]*node{}}}
}

// split cleans the path of an entry, which cannot leave the root, and returns
// its elements.
func split(name string) ([]string, error) {
	if len(name) > maxPath*2 {
		return nil, &Error{Reason: ReasonTooDeep, Entry: name}
	}
	clean := strings.Trim(path.Clean("/"+name), "/")
	if clean == "" {
		return nil, nil
	}
	elements := strings.Split(clean, "/")
	for _, e := range elements {
		switch {
		case len(e) > maxName || len(elements) > maxDepth:
			return nil, &Error{Reason: ReasonTooDeep, Entry: name}
		case strings.ContainsRune(e, 0):
			return nil, &Error{Reason: ReasonName, Entry: name}
		}
	}
	return elements, nil
}

// walk follows the elements of a path from dir, through symbolic links, which
// cannot leave the root either. It returns nil where there is nothing, or makes
// directories that are missing.
func (t *fileTree) walk(elements []string, create bool) (*node, error) {
	trail := []*node{&t.root}
	for links := 0; len(elements) > 0; {
		name := elements[0]
		elements = elements[1:]
		dir := trail[len(trail)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(trail) > 1 {
				trail = trail[:len(trail)-1]
			}
			continue
		}
		next := dir.children[name]
		switch {
		case next == nil && !create:
			return nil, nil
		case next == nil:
			next = &node{kind: kindDir, attr: erofs.Attr{Mode: 0o755}, children: map[string]*node{}}
			dir.children[name] = next
		case next.kind == kindLink:
			if links++; links > maxLinks {
				return nil, &Error{Reason: ReasonSymlink, Entry: name}
			}
			if path.IsAbs(next.target) {
				trail = trail[:1]
			}
			elements = append(strings.Split(next.target, "/"), elements...)
			continue
		case next.kind != kindDir && !create:
			return nil, nil
		case next.kind != kindDir:
			return nil, &Error{Reason: ReasonDuplicate, Entry: name}
		}
		trail = append(trail, next)
	}
	if create { // a node of this layer will be below all of these
		for _, n := range trail {
			n.layer = t.layer
		}
	}
	return trail[len(trail)-1], nil
}

// at returns what is at a path, the last element of which is not followed, or
// nil.
func (t *fileTree) at(name string) *node {
	elements, err := split(name)
	if err != nil || len(elements) == 0 {
		return nil
	}
	dir, err := t.walk(elements[:len(elements)-1], false)
	if err != nil || dir == nil {
		return nil
	}
	return dir.children[elements[len(elements)-1]]
}

// add puts a node of the present layer at a path, or applies a whiteout.
func (t *fileTree) add(name string, n node) error {
	elements, err := split(name)
	if err != nil {
		return err
	}
	if len(elements) == 0 {
		if n.kind != kindDir {
			return &Error{Reason: ReasonName, Entry: name}
		}
		t.root.attr = n.attr
		t.root.attr.Mode |= 0o555
		return nil
	}
	parents, base := elements[:len(elements)-1], elements[len(elements)-1]
	if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return t.whiteout(parents, base == whiteoutOpaque, hidden)
	}
	dir, err := t.walk(parents, true)
	if err != nil {
		return err
	}
	n.layer = t.layer
	old := dir.children[base]
	if n.kind == kindDir {
		n.children = map[string]*node{}
		if old != nil && old.kind == kindDir {
			n.children = old.children
		}
	}
	dir.children[base] = &n
	return nil
}

// whiteout removes what lower layers have: in a directory all, or one name.
func (t *fileTree) whiteout(parents []string, opaque bool, hidden string) error {
	dir, err := t.walk(parents, false)
	if dir == nil || err != nil {
		return err
	}
	if opaque {
		t.prune(dir)
		return nil
	}
	t.hide(dir, hidden)
	return nil
}

// prune removes all below a directory that does not come from this layer.
func (t *fileTree) prune(dir *node) {
	for name := range dir.children {
		t.hide(dir, name)
	}
}

// hide removes a child unless it comes from this layer, and what is below it.
func (t *fileTree) hide(dir *node, name string) {
	n := dir.children[name]
	switch {
	case n == nil:
	case n.layer < t.layer:
		delete(dir.children, name)
	case n.kind == kindDir:
		t.prune(n)
	}
}

// link gives the file at the path target another name.
func (t *fileTree) link(name, target string) error {
	n := t.at(target)
	if n == nil || n.kind == kindDir {
		return &Error{Reason: ReasonHardLink, Entry: name}
	}
	return t.add(name, *n)
}
