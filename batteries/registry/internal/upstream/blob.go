package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
)

// Blob makes sure that a blob is stored. When it has to be fetched, begin, unless
// nil, is called with its size, -1 when unknown, as soon as the first bytes are
// there, and the bytes are written to what begin returns on their way into the
// store; served says that this was done. A failure of that writer is nobody's
// problem: the blob is stored all the same.
//
// It returns [ErrUnknown] or an *[UnreachableError]; with served, the writer got
// only a part.
func (p *Puller) Blob(ctx context.Context, r *store.Repo, d digest.Digest, begin func(size int64) io.Writer) (served bool, err error) {
	key := r.Name() + "@" + d.String()
	for {
		_, err := r.Stat(ctx, d)
		if err == nil {
			p.opts.Count(r.Namespace(), Hit)
		}
		if !errors.Is(err, store.ErrBlobUnknown) {
			return false, err
		}
		p.mu.Lock()
		running := p.fetches[key]
		if running == nil {
			p.fetches[key] = make(chan struct{})
			p.mu.Unlock()
			break
		}
		p.mu.Unlock()
		select {
		case <-running: // look again, and try again if that one failed
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	defer func() {
		p.mu.Lock()
		close(p.fetches[key])
		delete(p.fetches, key)
		p.mu.Unlock()
	}()
	served, err = p.fetchBlob(context.WithoutCancel(ctx), r, d, begin)
	if err != nil {
		p.opts.Count(r.Namespace(), Error)
	} else {
		p.opts.Count(r.Namespace(), Miss)
	}
	return served, err
}

func (p *Puller) fetchBlob(ctx context.Context, r *store.Repo, d digest.Digest, begin func(size int64) io.Writer) (served bool, err error) {
	host := r.Namespace()
	if err := p.downNow(host); err != nil {
		return false, err
	}
	limit := p.opts.MaxBlob
	if room, err := r.Room(); err != nil {
		return false, err
	} else if room >= 0 {
		limit = min(limit, room)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, size, err := p.open(ctx, r, d)
	if err != nil {
		return false, err
	}
	defer body.Close()
	src := &source{body: body, left: limit, stall: time.AfterFunc(stallTimeout, cancel)}
	defer src.stall.Stop()

	// The request is sent by the first Read: until then nothing is promised.
	if err := src.fill(); err != nil {
		return false, p.explain(host, err)
	}
	up, err := r.Start(ctx)
	if err != nil {
		return false, err
	}
	if begin != nil {
		src.out, served = begin(size), true
	}
	if err := up.Append(src); err != nil {
		return served, errors.Join(p.explain(host, err), up.Cancel(ctx))
	}
	if err := up.Commit(ctx, d); err != nil {
		return served, fmt.Errorf("keep a copy of blob %s of %s: %w", d, r.Name(), err)
	}
	return served, nil
}

// open asks for a blob.
func (p *Puller) open(ctx context.Context, r *store.Repo, d digest.Digest) (io.ReadCloser, int64, error) {
	fetcher, err := p.resolver(ctx).Fetcher(ctx, r.Name()+"@"+d.String())
	if err != nil {
		return nil, 0, p.explain(r.Namespace(), err)
	}
	if size, ok := p.sizeOf(d); ok {
		body, err := fetcher.Fetch(ctx, v1.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: size})
		if err != nil {
			return nil, 0, p.explain(r.Namespace(), err)
		}
		return body, size, nil
	}
	// No manifest that was fetched since the start names it.
	byDigest, ok := fetcher.(remotes.FetcherByDigest)
	if !ok {
		return nil, 0, fmt.Errorf("%w: no image names it", ErrUnknown)
	}
	body, desc, err := byDigest.FetchByDigest(ctx, d)
	var transport net.Error
	switch {
	case errors.As(err, &transport):
		return nil, 0, p.explain(r.Namespace(), err)
	case err != nil:
		return nil, 0, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return body, desc.Size, nil
}

// source reads a body, bounded in size and in patience, and copies it to a
// writer that may fail.
type source struct {
	body  io.Reader
	left  int64
	stall *time.Timer
	out   io.Writer // nil: nobody listens, or not any more

	first []byte // read ahead by fill
	err   error  // that came with it
}

var errTooLarge = errors.New("it is larger than allowed here")

// fill reads the first bytes, and returns an error if there is none but the end.
func (s *source) fill() error {
	buf := make([]byte, 32<<10)
	n, err := s.body.Read(buf)
	s.first, s.err = buf[:n], err
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Read implements io.Reader.
func (s *source) Read(b []byte) (n int, err error) {
	if s.first != nil {
		n = copy(b, s.first)
		if s.first = s.first[n:]; len(s.first) == 0 {
			s.first, err = nil, s.err
		}
	} else {
		s.stall.Reset(stallTimeout)
		n, err = s.body.Read(b)
	}
	if s.left -= int64(n); s.left < 0 {
		return 0, errTooLarge
	}
	if s.out != nil && n > 0 {
		if _, werr := s.out.Write(b[:n]); werr != nil {
			s.out = nil
		}
	}
	return n, err
}

// remember notes the sizes of the blobs that a manifest names, so that whoever
// fetches one is told its length.
func (p *Puller) remember(content []byte) {
	var m v1.Manifest
	if json.Unmarshal(content, &m) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sizes) > maxRemembered {
		clear(p.sizes)
	}
	for _, desc := range append(m.Layers, m.Config) {
		if desc.Size > 0 {
			p.sizes[desc.Digest] = desc.Size
		}
	}
}

// sizeOf returns the size of a blob, if a manifest said it.
func (p *Puller) sizeOf(d digest.Digest) (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	size, ok := p.sizes[d]
	return size, ok
}
