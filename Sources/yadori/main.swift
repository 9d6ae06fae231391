import Commands

await Root.execute()
