/*
 * transaction.c
 *		Steps of work that each commit by themselves.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "utils/snapmgr.h"

#include "core/transaction.h"

static void
pin_characteristics(void)
{
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	XactDeferrable = false;
}

void
start_transaction(void)
{
	StartTransactionCommand();
	pin_characteristics();
	/* A worker has no portal: without a snapshot SPI refuses to run anything. */
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
finish_transaction(void)
{
	while (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
}

void
next_transaction(void)
{
	if (SPI_inside_nonatomic_context())
	{
		SPI_commit();
		pin_characteristics();
	}
	else
	{
		finish_transaction();
		start_transaction();
	}
}
