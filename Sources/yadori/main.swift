import Commands

BackgroundMachine.runIfAsked()
await Root.execute()
