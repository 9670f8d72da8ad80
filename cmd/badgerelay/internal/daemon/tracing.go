package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"badgerelay/cmd/internal/process"
)

// startTracing starts what makes and exports spans, nil where OpenTelemetry's standard
// variables name no place to send them to.
//
// Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and
// "General SDK Configuration" (read 2026-11).
func (d *daemon) startTracing(ctx context.Context, lifecycle *process.Lifecycle) (trace.TracerProvider, error) {
	if !tracingWanted(os.Getenv) {
		return nil, nil
	}
	t, err := newTracing(ctx, d.config.SampleRatio(), d.version, d.instance, d.Log)
	if err != nil {
		return nil, fmt.Errorf("set up tracing: %w", err)
	}
	lifecycle.Start("tracing", func(ctx context.Context) error { return sendTraces(ctx, t) }, nil)
	return t, nil
}

func newTracing(ctx context.Context, ratio float64, version, instance string, logger *slog.Logger) (*sdktrace.TracerProvider, error) {
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, err
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "badgerelay"),
		attribute.String("service.version", version),
		attribute.String("service.instance.id", instance),
	), resource.WithFromEnv(), resource.WithTelemetrySDK()) // the variables win: they come later
	if err != nil {
		return nil, err
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithBatcher(exporter), sdktrace.WithResource(about)}
	if os.Getenv("OTEL_TRACES_SAMPLER") == "" {
		options = append(options, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))))
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("traces are lost", "error", err) })) // its own writes to standard error
	logger.Info("tracing", "sample_ratio", ratio)
	return sdktrace.NewTracerProvider(options...), nil
}

func tracingWanted(getenv func(string) string) bool {
	if getenv("OTEL_SDK_DISABLED") == "true" || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// sendTraces sends what is left when ctx is done.
func sendTraces(ctx context.Context, t *sdktrace.TracerProvider) error {
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	_ = t.Shutdown(last) // a collector that is away must not fail the stop
	return nil
}
