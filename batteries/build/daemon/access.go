package daemon

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// newServer makes a gRPC server with BuildKit's limits that lets in only those
// whose bearer token authorize accepts; nil lets everyone in.
func newServer(authorize func(context.Context, string) error) *grpc.Server {
	unary := []grpc.UnaryServerInterceptor{grpcerrors.UnaryServerInterceptor}
	stream := []grpc.StreamServerInterceptor{grpcerrors.StreamServerInterceptor}
	if authorize != nil {
		unary = append(unary, func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := checkToken(ctx, authorize); err != nil {
				return nil, err
			}
			return next(ctx, req)
		})
		stream = append(stream, func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := checkToken(ss.Context(), authorize); err != nil {
				return err
			}
			return next(srv, ss)
		})
	}
	return grpc.NewServer(
		grpc.ChainUnaryInterceptor(unary...), grpc.ChainStreamInterceptor(stream...),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize), grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize))
}

// checkToken finds the caller's token where gRPC clients put it (RFC 6750 in
// the "authorization" metadata) and has it judged.
func checkToken(ctx context.Context, authorize func(context.Context, string) error) error {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get("authorization") {
		token, ok := strings.CutPrefix(v, "Bearer ")
		if !ok {
			continue
		}
		if err := authorize(ctx, token); err != nil {
			return status.Error(codes.Unauthenticated, err.Error())
		}
		return nil
	}
	return status.Error(codes.Unauthenticated, "the builder needs a token: use `emerald build`")
}

// pipeListener accepts connections made in this process.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

var errPipeClosed = errors.New("the builder has stopped")

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, errPipeClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, errPipeClosed
	}
}

// Close implements net.Listener.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "inside", Net: "pipe"} }
