/*
 * transaction.c
 *		Steps of work that each commit by themselves.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"

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
		CommitTransactionCommand();
		start_transaction();
	}
}
